"""Weights & Biases and MLflow as sinks: a file each, loaded through its entry point."""

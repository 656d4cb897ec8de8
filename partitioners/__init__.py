"""Partitioners, a file each: ways to divide a model's tensors into components."""

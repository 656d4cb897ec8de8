"""Checkpoints, pools and run folders on disk."""

"""Training: where pools come from."""

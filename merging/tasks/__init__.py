"""Tasks: a model with its held-out, test and shifted data."""

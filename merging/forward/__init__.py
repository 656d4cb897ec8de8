"""A model on its device: weights mixed in place, forward and backward passes."""

"""Optimiser backends, a file each: derivative-free search in a box."""

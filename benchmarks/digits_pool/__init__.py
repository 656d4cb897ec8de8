"""Makes the built-in pool: the rendered pretraining set, and the base."""

"""Sets of samples, from what the user writes to tensors."""

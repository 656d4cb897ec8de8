"""What is seen without merging: pools, models, data, estimates."""

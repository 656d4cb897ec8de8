"""Which bits are the model: sums of checkpoints, streamed from file to file."""

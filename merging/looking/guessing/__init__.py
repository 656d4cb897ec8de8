"""What a folder holds, guessed: checkpoints, their architecture, data, classes, and the merge.toml that says so."""

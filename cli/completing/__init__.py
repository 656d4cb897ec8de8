"""What the shell completes: commands, flags, and the values that they take."""

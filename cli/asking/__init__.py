"""From what the user types to objects."""

"""Many workers: what they can gain, what they do gain, and what happens when they are killed."""

"""``merge benchmark``: many methods over one pool, side by side, with intervals, paired tests and pictures."""

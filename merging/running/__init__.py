"""A merge from its plan to its report."""

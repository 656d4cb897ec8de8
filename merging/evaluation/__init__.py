"""The one door through which everything that is scored goes."""

"""The command line: a thin layer that turns strings into objects and calls the public API."""

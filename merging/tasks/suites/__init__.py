"""Registered tasks, a file each: what they take, and where they are from."""

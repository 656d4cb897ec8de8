"""Merging strategies, a file each: dropping a file here registers, lists and tests it."""

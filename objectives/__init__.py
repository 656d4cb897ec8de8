"""Objectives, a file each: what a search maximises."""

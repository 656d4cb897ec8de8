"""Soups compared by a protocol: pools that are trained, compared and kept step by step, and tables of what is kept."""

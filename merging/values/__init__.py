"""What the rest of the package talks in: frozen values, no files, no torch at import."""

"""A benchmark's results as tables, documents, pictures and a page."""

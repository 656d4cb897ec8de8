"""A benchmark's results as tables, documents, pictures and a page."""

from merging.moved import forwarding

__getattr__ = forwarding(__name__)  # this was the module that is called forms now

"""Forms of data, a file each: how a set is written on disk, and what finds it there."""

from merging.moved import forwarding

__getattr__ = forwarding(__name__)  # Opened, Reader, UNLABELLED and is_images have moved

"""Sinks, a file each: a new one is registered, listed, documented and tested with no other edit."""

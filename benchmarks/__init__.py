"""Measurements that the documentation cites; each prints the table it is cited from."""

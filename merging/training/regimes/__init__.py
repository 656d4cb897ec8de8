"""Regimes: how the models of a pool are trained, one file each."""

"""Model builders: how a string such as ``open_clip:ViT-B-32`` becomes a module for a pool."""

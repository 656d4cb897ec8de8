"""Evaluation on many workers: who carries requests, who answers them, and who asks."""

"""Merged language models on real text, from its packages to the tables of docs/results/language.md.

``python -m benchmarks.language STEP --output DIR``: ``corpus``, ``tokenizer``, ``pretrain``, ``finetune``, ``compare``,
in this order, or ``all``. Each goes on where it was interrupted, and takes less than 45 minutes on two cores.
"""

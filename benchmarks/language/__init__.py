"""Merged language models on real text, from its packages to the tables of docs/results/language.md.

``python -m benchmarks.language STEP --output DIR``: ``corpus``, ``tokenizer``, ``pretrain``, ``finetune``, ``score``,
``compare``, ``tables``, in this order, or ``all``. Each goes on where it was interrupted.
"""

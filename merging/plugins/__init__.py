"""The interface of each kind of plug-in, how options are declared, and how plug-ins are found.

A plug-in is a frozen dataclass: its options are its fields (see :func:`merging.plugins.options.option`), its work is
one or two methods. Loops, budgets, counting, seeding, caching, journal and progress live in the core.
"""

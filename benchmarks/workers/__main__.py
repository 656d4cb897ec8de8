"""``python -m benchmarks.workers``: see :mod:`benchmarks.workers`."""

from __future__ import annotations

from benchmarks.workers.command import main

if __name__ == "__main__":
    main()

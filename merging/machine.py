"""What this machine and this process are: cores, memory, open files."""

from __future__ import annotations

import contextlib
import os
import resource
import sys


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def allow_open_files() -> None:
    """Lets this process have as many files open as it may: a pool of many shards needs more than shells give."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems say that there is no limit, and mean another
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""What this machine and this process are, and may be asked for: cores, memory, open files, installed versions."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

PRECISIONS = ("auto", "fp32", "bf16")
"""Precisions that forward passes may have, as a user names them."""
MOST_THREADS = 1024
"""Largest number of threads that may be asked for: more than any machine has."""

_limit: ContextVar[int | None] = ContextVar("threads", default=None)


def cores() -> int:
    """Cores that this process may use: those it is bound to, unless fewer are granted.

    Fewer: by the cgroup's CPU limit (a container's, a job's), by ``OMP_NUM_THREADS`` or ``OMP_THREAD_LIMIT``, or by
    :func:`at_most`.
    """
    asked = [_whole(os.environ.get(name, "")) for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")]
    return max(1, min(count for count in (cores_of_all(), *asked, _limit.get()) if count is not None))


def cores_of_all() -> int:
    """Cores for this process and those that it starts together: what limits the threads of one is no limit of these."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = granted()
    return max(1, bound if share is None else min(bound, share))


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Has :func:`cores` give no more than so many for a while; None: as many as ever."""
    token = _limit.set(threads if threads is not None and threads > 0 else _limit.get())
    try:
        yield
    finally:
        _limit.reset(token)


def granted(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Cores' worth of time that the process's cgroup and those around it grant, rounded up; None: no limit.

    Args:
        process: which groups it is in.
        root: folder in which they are mounted: version 2 (``cpu.max``), version 1 (``cpu.cfs_quota_us``), or both.
    """
    try:
        lines = [line.split(":", 2) for line in process.read_text("utf-8", "replace").splitlines()]
    except OSError:  # not Linux
        return None
    shares = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            homes = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            homes = [root / controllers, root / "cpu"]
        else:
            continue
        inner = PurePosixPath("/", path).relative_to("/")
        for home in homes:
            # Within a container the path may be the host's, and what is mounted its own group alone.
            shares += [_share(home / group) for group in (inner, *inner.parents)]
    found = [share for share in shares if share is not None]
    return max(1, math.ceil(min(found))) if found else None


def _share(group: Path) -> float | None:
    """Cores' worth of time that one group grants."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, _, period = (group / "cpu.max").read_text("utf-8").strip().partition(" ")
        return None if quota == "max" else float(quota) / float(period or 100_000)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = (group / "cpu.cfs_quota_us").read_text("utf-8")
        return float(quota) / float((group / "cpu.cfs_period_us").read_text("utf-8")) if float(quota) > 0 else None
    return None


def _whole(text: str) -> int | None:
    """The first number of a variable such as OMP_NUM_THREADS (one for each level); None: there is none."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes that could be used without swapping; all of the machine's where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back() -> None:
    """Hands memory that was freed back to the system, where the C library (glibc) keeps it for later.

    The tensors of a model that has moved elsewhere are too small for it to give them back by itself.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def allow_open_files() -> None:
    """Lets this process have as many files open as it may: a pool of many shards needs more than shells give."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems say that there is no limit, and mean another
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages, which are not imported for that."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | found

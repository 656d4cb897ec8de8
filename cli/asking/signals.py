"""Signals that end a run with the best so far, and when the process began."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def stop_on_signal(news: Any, saying: str = "stopping: saving the best so far") -> Iterator[Any]:
    """The first Ctrl-C (or SIGTERM) ends the run between two batches, the best so far saved; the second one at once."""
    stop: list[int] = []
    asked: list[bool] = []  # whether the run has begun to ask: before, there is nothing to save

    def handle(number: int, frame: Any) -> None:
        del frame
        if stop or not asked:
            raise KeyboardInterrupt
        stop.append(number)
        news.print(f"[yellow]{saying} (again to quit at once) …[/]")

    def should_stop() -> bool:
        if not asked:
            asked.append(True)
        return bool(stop)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield should_stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def process_start() -> float:
    """When this process began, in seconds since the epoch: the interpreter's own start counts as waiting too."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        import os

        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + int(stat[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError, IndexError):  # not Linux
        return time.time()

"""Signals that end a run with the best so far, and when the process began."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.cli.showing.screen import marked

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that has been closed; None on Windows, which has no such signal."""


@contextlib.contextmanager
def stop_on_signal(news: Any, saying: str = "stopping: saving the best so far") -> Iterator[Any]:
    """The first signal ends the run between two batches, the best so far saved; the second one at once.

    Signals: Ctrl-C, SIGTERM, and SIGHUP, with which a terminal or ssh session that is closed says good-bye. That one
    may come from shell and kernel both, so its second time ends nothing; where it is ignored (nohup), it stays so.
    """
    stop: list[int] = []
    asked: list[bool] = []  # whether the run has begun to ask: before, there is nothing to save

    def handle(number: int, frame: Any) -> None:
        del frame
        if stop and number == HANGUP:
            return
        if stop or not asked:
            raise KeyboardInterrupt
        stop.append(number)
        news.print(marked("[yellow]{} (again to quit at once) …[/]", saying))

    def should_stop() -> bool:
        if not asked:
            asked.append(True)
        return bool(stop)

    taken = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        taken.append(HANGUP)
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield should_stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def process_start() -> float:
    """Seconds since the epoch at which this process began: the interpreter's own start counts as waiting too."""
    try:
        stat = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        import os

        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + int(stat[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError, IndexError):  # not Linux
        return time.time()

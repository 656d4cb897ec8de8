"""A process that outlives the program which has started a Ray, and ends what is left of that Ray.

Ray's own processes notice within seconds that a program was killed, but two of them only after a minute, and its folder
stays. This one is started by its path, with nothing but the standard library, and ends with its work.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "RAY_OF_MERGING"
"""Variable in the environment of all processes of a Ray: its folder."""
PATIENCE = 3.0
"""Seconds after which whoever still comes into being is not ours to end."""


def left_of(folder: str) -> list[int]:
    """Processes of a Ray that has its files in a folder; none where the system does not show environments."""
    mark, found = f"{MARK}={folder}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if mark in environment.split(b"\0") and entry.name != str(os.getpid()):
            found.append(int(entry.name))
    return found


def main() -> None:
    """Is given the folder, and waits for the end of the standard input, which is the program's."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    folder = sys.argv[1]
    sys.stdin.buffer.read()
    end = time.monotonic() + PATIENCE
    while (left := left_of(folder)) and time.monotonic() < end:
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

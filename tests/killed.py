"""Killing a process between two of its calls, at a place that is named: in a fork, by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

CALLS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
"""Audit events that change which files are there."""


def killed_at(number: int, call: Callable[[], object], inside: Path) -> bool:
    """Runs a call in a process that is killed before its so many-th change to what lies in a folder.

    Args:
        number: counted from 1.
        call: what is done.
        inside: changes elsewhere are not counted.

    Returns:
        Whether it was killed; False where the call ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside idle threads
        child = os.fork()
    if child == 0:
        left = number
        place = str(inside)

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in CALLS and any(str(a).startswith(place) for a in arguments if isinstance(a, str | Path)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        with contextlib.suppress(BaseException):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                call()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the call itself failed"
    return os.WIFSIGNALED(status)

"""What registered tasks are told of their data: their place, the seed of the parts, how many may be damaged."""

from __future__ import annotations

from pathlib import Path

from merging.data.damage import CORRUPT
from merging.errors import TaskError


def place(task: str, data: str | Path | None, what: str) -> Path:
    """Finds the place of a task's data, ``~`` as the home folder.

    Args:
        task: name of the task.
        data: what [task] says.
        what: is there, for the message where it says nothing.

    Raises:
        TaskError: it says nothing.
    """
    if data is None:
        raise TaskError(f"the task '{task}' needs data: {what}")
    return Path(data).expanduser()


def tolerated(corrupt: float | None) -> float:
    """Share of a set's pictures that may be damaged; None: the usual one."""
    return CORRUPT if corrupt is None else corrupt


def checked_seed(split_seed: int) -> int:
    """The seed by which a task's parts are drawn, which numpy wants whole and not negative.

    Raises:
        TaskError: it is negative.
    """
    if split_seed < 0:
        raise TaskError(f"split_seed is {split_seed}; it is a whole number from 0 on")
    return split_seed

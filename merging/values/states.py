"""How runs and methods end, and how they are wanted to: values to decide by, and words for files and people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from merging.errors import LIMIT_REACHED


class RunState(StrEnum):
    """The state in which a run, or a whole benchmark, has ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Somebody has stopped it; what it saves is the best so far."""
    LIMIT = "limit"
    """It has used up the evaluations that it was allowed; what it saves is the best so far."""


class MethodState(StrEnum):
    """The state in which one method of a benchmark has ended; its value is the word for it."""

    FINISHED = "finished"
    CANNOT_RUN = "cannot run"
    """Something that it needs is not there, or the partition does not fit."""
    FAILED = "failed"
    """It broke while it ran."""
    NOT_RUN = "not run"
    """The benchmark ended before its turn."""


class Wanted(StrEnum):
    """A standing that a pipeline asks for; what falls short of it ends with exit code 3."""

    BETTER = "better"
    """Better on at least one of the sets that count, and worse on none of them."""
    NOT_WORSE = "not-worse"
    """Worse on none of the sets that count, and tested on all of them."""


def status_of(state: RunState, limit: int | None) -> str:
    """The words for a run's state, as reports say it and JSON keeps it.

    Args:
        state: how it has ended.
        limit: how many evaluations it was allowed, where these are used up.

    >>> status_of(RunState.LIMIT, 20), status_of(RunState.FINISHED, None)
    ('--max-evaluations 20 reached', 'finished')
    """
    return LIMIT_REACHED.format(limit) if state is RunState.LIMIT else str(state)


def ended(state: RunState, limit: int | None) -> str:
    """The same for Python, which has no flags; empty where a run is finished.

    >>> ended(RunState.LIMIT, 20), ended(RunState.INTERRUPTED, None), ended(RunState.FINISHED, None)
    ('limit of 20 evaluations reached', 'interrupted', '')
    """
    if state is RunState.LIMIT:
        return f"limit of {limit} evaluations reached"
    return "" if state is RunState.FINISHED else str(state)


def state_of(status: str) -> tuple[RunState, int | None]:
    """Reads :func:`status_of` back; other words, which plug-ins of earlier versions could give, were interruptions.

    Raises:
        ValueError: it is no text.

    >>> state_of("--max-evaluations 20 reached")
    (<RunState.LIMIT: 'limit'>, 20)
    """
    if not isinstance(status, str):
        raise ValueError(f"a run's status is text, not {type(status).__name__}")
    if found := re.fullmatch(LIMIT_REACHED.format(r"(\d+)"), status):
        return RunState.LIMIT, int(found[1])
    return (RunState.FINISHED if status == RunState.FINISHED else RunState.INTERRUPTED), None


def worded(data: Mapping[str, Any]) -> dict[str, Any]:
    """A value's JSON with ``status``, in words, where its ``state`` and ``limit`` stood."""
    status = status_of(data["state"], data["limit"])
    rest = {("status" if name == "state" else name): value for name, value in data.items() if name != "limit"}
    return rest | {"status": status}


def unworded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Puts ``state`` and ``limit`` back where :func:`worded` has put ``status``.

    Raises:
        ValueError: the status is no text.
    """
    state, limit = state_of(data["status"])
    return {name: value for name, value in data.items() if name != "status"} | {"state": state, "limit": limit}

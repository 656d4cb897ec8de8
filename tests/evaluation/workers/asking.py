"""What tests ask workers for, whoever carries it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from merging.evaluation.workers.backend import Backend, Received

_came: WeakKeyDictionary[Backend, deque[Received]] = WeakKeyDictionary()
"""What has come while something else was waited for."""


def until(backend: Backend, worker: int, seconds: float = 30) -> Received:
    """The next thing that comes from a worker."""
    kept = _came.setdefault(backend, deque())
    end = time.monotonic() + seconds
    while True:
        for each in kept:
            if each.worker == worker:
                kept.remove(each)
                return each
        assert time.monotonic() < end, "nothing has come"
        kept.extend(backend.receive(0.5))


def asked(backend: Backend, worker: int, messages: int = 1) -> list[list[bytes]]:
    """The answers to so many messages."""
    return [list(_answers(backend, worker)) for _ in range(messages)]


def _answers(backend: Backend, worker: int) -> Iterator[bytes]:
    while True:
        came = until(backend, worker)
        assert came.message is not None, came.reason
        if came.last:
            assert came.message == b""
            return
        yield came.message


def lost(backend: Backend, worker: int) -> tuple[list[bytes], str]:
    """What a worker says before it is lost, and how it ended."""
    words = []
    while (came := until(backend, worker)).message is not None:
        assert not came.last
        words.append(came.message)
    return words, came.reason

"""Streams of the second device: copies that arrive when something waits for them, and not before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Stream:
    """Copies that were asked for and have not been waited for.

    Another stream may wait for them without this program: what they are made of must stay as it is until the program
    has waited too.

    Args:
        device: name of the GPU; there is one.
        how: what else ``torch.cuda.Stream`` takes.

    Attributes:
        pending: the copies.
        leaving: storages that they are made of.
    """

    def __init__(self, device: object = None, **how: Any) -> None:
        self.pending: list[Callable[[], object]] = []
        self.leaving: list[Any] = []

    def record_event(self) -> Event:
        """An event behind all that was asked for."""
        return Event(self)

    def synchronize(self) -> None:
        """Waits until the copies are made."""
        self.arrive()
        self.leaving.clear()

    def arrive(self) -> None:
        """Makes the copies that are still pending."""
        while self.pending:
            self.pending.pop(0)()

    def wait_stream(self, other: Stream) -> None:
        """Waits for another stream: its copies are made now."""
        other.arrive()

    def is_capturing(self) -> bool:
        """Whether a graph is recorded, which never is."""
        return False


class Event:
    """An event that has happened once its stream has done what it was told.

    Args:
        stream: stream whose copies until now come before the event; None: nothing does.
        how: what else ``torch.cuda.Event`` takes.
    """

    def __init__(self, stream: Stream | None = None, **how: Any) -> None:
        self._stream = stream

    def synchronize(self) -> None:
        """Waits until the copies of its stream are made."""
        if self._stream is not None:
            self._stream.synchronize()

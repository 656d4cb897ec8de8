"""Where it is told what is fetched from the Hub."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Protocol


class News(Protocol):
    """The receiver of what is fetched: any progress of a run (see :class:`merging.plugins.progress.Progress`)."""

    def stage(self, text: str, total: int | None = None) -> None:
        """Called where a model is begun, with its megabytes."""

    def advance(self, steps: int = 1) -> None:
        """Called where megabytes have come."""

    def say(self, text: str) -> None:
        """Called with a line that says what is fetched from where, and how much it is."""


_told: contextvars.ContextVar[News | None] = contextvars.ContextVar("told", default=None)


@contextlib.contextmanager
def told(news: News) -> Iterator[None]:
    """Has what is fetched meanwhile told there; where nobody is told, huggingface_hub shows bars of its own."""
    before = _told.set(news)
    try:
        yield
    finally:
        _told.reset(before)


def who_is_told() -> News | None:
    """The receiver, where there is one."""
    return _told.get()


def say(text: str) -> None:
    """Tells a line to the receiver, where there is one."""
    news = _told.get()
    if news is not None:
        news.say(text)

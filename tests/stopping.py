"""Stopping what runs at a moment of a test's choice."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count


def after(questions: int) -> Callable[[], bool]:
    """A ``should_stop`` that says no so many times, and yes from then on."""
    asked = count()
    return lambda: next(asked) >= questions

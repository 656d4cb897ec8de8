"""Who is told of work that takes long, and may end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from merging.errors import OptionError
from merging.plugins.keywords import check_kinds
from merging.plugins.progress import Progress, Silent
from merging.values.wording import kind_of

_NEWS = ("stage", "advance", "search", "best", "decision", "status", "say")
"""Methods of a progress."""


def never() -> bool:
    """Answers that work should go on: the ``should_stop`` of whoever stops nothing."""
    return False


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """The observer of work that takes long: it is told what happens, and may end it.

    Attributes:
        progress: told what happens (:class:`merging.Progress`).
        should_stop: asked between batches; True ends the run with the best so far.
    """

    progress: Progress = field(default=Silent(), metadata={"help": "Told what happens."})
    should_stop: Callable[[], bool] = field(
        default=never,
        metadata={
            "help": "Asked between batches; True ends the run with the best so far.",
            "takes": (Callable, "a function that says True or False"),
        },
    )

    def __post_init__(self) -> None:
        check_kinds(self)
        told: Progress | None = self.progress  # None is what callers pass on where nobody listens
        if told is None:
            object.__setattr__(self, "progress", Silent())
        lack = next((name for name in _NEWS if not callable(getattr(self.progress, name, None))), None)
        if lack is not None:
            raise OptionError(f"progress is {kind_of(self.progress)}; it is an object derived from merging.Silent")

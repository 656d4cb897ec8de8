"""Who is told of work that takes long, and may end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from merging.plugins.progress import Progress, Silent


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
        default=never, metadata={"help": "Asked between batches; True ends the run with the best so far."}
    )

    def __post_init__(self) -> None:
        told: Progress | None = self.progress  # None is what callers pass on where nobody listens
        if told is None:
            object.__setattr__(self, "progress", Silent())

"""Who is told of work that takes long, and may end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError
from merging.plugins.bar import Bar, in_notebook, of_call
from merging.plugins.keywords import check_kinds
from merging.plugins.progress import Progress, Silent
from merging.values.wording import kind_of

NEWS = ("stage", "advance", "search", "best", "decision", "status", "say")
"""The methods of a progress."""


def never() -> bool:
    """Answers that work should go on: the ``should_stop`` of whoever stops nothing."""
    return False


class Unsaid(Silent):
    """The progress of who said nothing about it: a bar in a notebook, and silence elsewhere."""

    def __repr__(self) -> str:
        return "None"


UNSAID = Unsaid()


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """The observer of work that takes long: it is told what happens, and may end it.

    Attributes:
        progress: told what happens (:class:`merging.Progress`): True makes it a bar, False nobody. Where nothing is
            said, it is a bar in a notebook, and nobody in a program, a script or at a prompt.
        should_stop: asked between batches; True ends the run with the best so far.

    Raises:
        OptionError: a progress lacks one of its methods.
    """

    progress: Progress = field(
        default=UNSAID,
        metadata={
            "help": "Told what happens: an object such as a subclass of Silent; True: a bar; False: nobody; by default "
            "a bar in notebooks."
        },
    )
    should_stop: Callable[[], bool] = field(
        default=never,
        metadata={
            "help": "Asked between batches; True ends the run with the best so far.",
            "takes": (Callable, "a function that says True or False"),
        },
    )

    if TYPE_CHECKING:

        def __init__(
            self, *, progress: Progress | bool | None = UNSAID, should_stop: Callable[[], bool] = never
        ) -> None: ...

    def __post_init__(self) -> None:
        check_kinds(self)
        told: Any = self.progress
        if told is None or isinstance(told, bool):  # None is what callers pass on where nobody listens
            object.__setattr__(self, "progress", Bar() if told else Silent())
            return
        if not all(callable(getattr(told, name, None)) for name in NEWS):
            raise OptionError(
                f"progress is {kind_of(told)}; it is True, False, or an object derived from merging.Silent"
            )

    @classmethod
    def told(cls, progress: Progress | bool | None) -> Progress:
        """The progress that a function without other settings is given; its bar ends with the call in progress."""
        return cls().changed({"progress": progress}).progress

    def changed(self, values: Mapping[str, Any]) -> Watcher:
        """The watcher of one call: other values in the place of some, and what was left open decided.

        Args:
            values: field → value.
        """
        made = replace(self, **values)
        if made.progress is UNSAID:
            made = Watcher(progress=in_notebook(), should_stop=made.should_stop)
        of_call(made.progress)
        return made

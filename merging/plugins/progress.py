"""Where news of a run goes, and the sink that shows nothing: the default of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from merging.values.outcome import Outcome
    from merging.values.workers import WorkersState


class Progress(Protocol):
    """The receiver of a run's news: the terminal shows it, a notebook may ignore it."""

    def stage(self, text: str, total: int | None = None) -> None:
        """Called where a new piece of work begins, with ``total`` steps where that is known."""

    def advance(self, steps: int = 1) -> None:
        """Called where some steps of the current piece are done."""

    def search(self, asked: int, budget: int, best: float) -> None:
        """Called where a search has scored a point: ``asked`` of ``budget`` so far, and the best score."""

    def best(self, outcome: Outcome, models: int) -> None:
        """Called where a better merge was found, which has so many models in it."""

    def decision(self, facts: Mapping[str, Any]) -> None:
        """Called where a strategy decided something; ``facts`` is what the journal holds."""

    def status(self, text: str) -> None:
        """Called where the current piece has a new status, in a few words; the next one takes its place."""

    def say(self, text: str) -> None:
        """Called where something is worth a line of its own."""


def tell_precision(progress: Progress, text: str) -> None:
    """Tells a progress that has a method ``precision`` what the scores that follow are computed in."""
    tell = getattr(progress, "precision", None)
    if tell is not None:
        tell(text)


def tell_measure(progress: Progress, objective: str) -> None:
    """Tells a progress that has a method ``measure`` what the scores that follow are."""
    tell = getattr(progress, "measure", None)
    if tell is not None:
        tell(objective)


def tell_unit(progress: Progress, unit: str) -> None:
    """Tells a progress that has a method ``unit`` what the steps of the next piece are, such as MiB."""
    tell = getattr(progress, "unit", None)
    if tell is not None:
        tell(unit)


def tell_workers(progress: Progress, state: WorkersState) -> None:
    """Tells a progress that has a method ``workers`` how the workers of the run are doing; as often as that changes."""
    tell = getattr(progress, "workers", None)
    if callable(tell):
        tell(state)


class Silent:
    """Takes every piece of news and drops it (see :class:`Progress`); subclass what you need."""

    def precision(self, text: str) -> None:
        """Called with the precision of the scores that follow where it is not fp32, such as bf16; empty: fp32 again.

        It is called only where a progress has it: one may do without.
        """
        del text

    def measure(self, objective: str) -> None:
        """Called with the objective of the scores that follow; only where a progress has it."""
        del objective

    def workers(self, state: WorkersState) -> None:
        """Called with how the workers are doing, hundreds of times a second; only where a progress has it."""
        del state

    def stage(self, text: str, total: int | None = None) -> None:
        """Drops the news that a new piece of work begins."""
        del text, total

    def advance(self, steps: int = 1) -> None:
        """Drops the news that some steps are done."""
        del steps

    def search(self, asked: int, budget: int, best: float) -> None:
        """Drops the news that a search has scored a point."""
        del asked, budget, best

    def best(self, outcome: Outcome, models: int) -> None:
        """Drops the news that a better merge was found."""
        del outcome, models

    def decision(self, facts: Mapping[str, Any]) -> None:
        """Drops the news that a strategy decided something."""
        del facts

    def status(self, text: str) -> None:
        """Drops the status of the current piece."""
        del text

    def say(self, text: str) -> None:
        """Drops what is worth a line of its own."""
        del text

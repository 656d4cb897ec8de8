"""Where news of a run goes, and the sink that shows nothing: the default of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from merging.values.outcome import Outcome


class Progress(Protocol):
    """Where news of a run goes; the terminal shows it, a notebook may ignore it."""

    def stage(self, text: str, total: int | None = None) -> None:
        """A new piece of work begins; ``total`` steps where that is known."""

    def advance(self, steps: int = 1) -> None:
        """Some steps of the current piece are done."""

    def search(self, asked: int, budget: int, best: float) -> None:
        """One more point of a search was scored."""

    def best(self, outcome: Outcome, models: int) -> None:
        """The best merge so far, and how many models are in it."""

    def decision(self, facts: Mapping[str, Any]) -> None:
        """A strategy decided something; ``facts`` is what the journal holds."""

    def status(self, text: str) -> None:
        """How the current piece stands, in a few words; the next status takes its place."""

    def say(self, text: str) -> None:
        """A line worth keeping."""


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


class Silent:
    """Takes every piece of news and drops it (see :class:`Progress`); subclass what you need."""

    def precision(self, text: str) -> None:
        """What the scores that follow are computed in where that is not fp32, such as bf16; empty: in fp32 again.

        Asked for only where a progress has it: one may do without.
        """
        del text

    def measure(self, objective: str) -> None:
        """What the scores that follow are: accuracy, or an objective's name; asked for where a progress has it."""
        del objective

    def stage(self, text: str, total: int | None = None) -> None:
        """A new piece of work begins."""
        del text, total

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        del steps

    def search(self, asked: int, budget: int, best: float) -> None:
        """One more point was scored."""
        del asked, budget, best

    def best(self, outcome: Outcome, models: int) -> None:
        """A better merge."""
        del outcome, models

    def decision(self, facts: Mapping[str, Any]) -> None:
        """A decision."""
        del facts

    def status(self, text: str) -> None:
        """How the current piece stands."""
        del text

    def say(self, text: str) -> None:
        """A line worth keeping."""
        del text

"""Where news of a run goes, and the sink that shows nothing: the default of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from merging.values.outcome import Outcome


class Progress(Protocol):
    """Takes the news of a run; the terminal shows them, a notebook may ignore them."""

    def stage(self, text: str, total: int | None = None) -> None:
        """A new piece of work begins; ``total`` steps where that is known."""

    def advance(self, steps: int = 1) -> None:
        """Some steps of the current piece are done."""

    def search(self, asked: int, budget: int, best: float) -> None:
        """Told that one more point of a search was scored."""

    def best(self, outcome: Outcome, models: int) -> None:
        """A better merge was found, and has so many models in it."""

    def decision(self, facts: Mapping[str, Any]) -> None:
        """A strategy decided something; ``facts`` is what the journal holds."""

    def status(self, text: str) -> None:
        """The current piece stands so, in a few words; the next status takes their place."""

    def say(self, text: str) -> None:
        """Something was said that is worth a line of its own."""


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
        """The scores that follow are computed in this where it is not fp32, such as bf16; empty: in fp32 again.

        Asked for only where a progress has it: one may do without.
        """
        del text

    def measure(self, objective: str) -> None:
        """The scores that follow are by the objective of this name; asked for where a progress has it."""
        del objective

    def stage(self, text: str, total: int | None = None) -> None:
        """A new piece of work begins."""
        del text, total

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        del steps

    def search(self, asked: int, budget: int, best: float) -> None:
        """Told that one more point of a search was scored."""
        del asked, budget, best

    def best(self, outcome: Outcome, models: int) -> None:
        """A better merge was found."""
        del outcome, models

    def decision(self, facts: Mapping[str, Any]) -> None:
        """A strategy decided something."""
        del facts

    def status(self, text: str) -> None:
        """The current piece stands otherwise now."""
        del text

    def say(self, text: str) -> None:
        """Something was said that is worth a line of its own."""
        del text

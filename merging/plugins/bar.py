"""A run's news as one bar: what it does, the best so far, the time left; in a notebook, or on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from merging.errors import showable
from merging.notebook import tqdm_of_here
from merging.plugins.progress import Progress, Silent
from merging.values.outcome import Outcome
from merging.values.report import scored
from merging.values.verdict import ACCURACY
from merging.values.wording import beginning, plural
from merging.values.workers import Seen, WorkersState

if TYPE_CHECKING:
    from tqdm.std import tqdm

COUNTED = "{desc} {bar} {n:.0f}/{total:.0f}, {remaining} left{postfix}"
OPEN = "{desc} …{postfix}"
"""A piece of work with a known number of steps, and without."""
_SHOWN: ContextVar[list[Bar] | None] = ContextVar("bars of the call in progress", default=None)


class Bar(Silent):
    """Shows the piece of work at hand as a bar, which the next piece takes over; :meth:`close` takes it away."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._done = 0.0
        self._precision, self._objective = "", ACCURACY
        self._status, self._crew = "", Seen()

    def stage(self, text: str, total: int | None = None) -> None:
        """Begins a new piece of work; ``total`` is its number of steps, where known."""
        self._done = 0.0
        if self._bar is None:
            self._bar = tqdm_of_here()(leave=False, miniters=0, mininterval=0.2, dynamic_ncols=True, bar_format=OPEN)
        bar = self._bar
        bar.total, bar.bar_format = total or None, COUNTED if total else OPEN
        bar.set_description_str(beginning(showable(text), 48), refresh=False)
        bar.reset(total or None)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar by some steps of the current piece."""
        self._done += steps
        self._move(self._done)

    def search(self, asked: int, budget: int, best: float) -> None:
        """A search counts as part of the step it belongs to, so that the time left takes it in."""
        del best  # what counts is the best merge, once it is rebuilt and scored again
        self._move(self._done + 0.98 * asked / budget)

    def precision(self, text: str) -> None:
        """Takes what stands behind each score from now on, such as ``bf16``; empty: nothing."""
        self._precision = f" {showable(text)}" if text else ""

    def measure(self, objective: str) -> None:
        """Takes the objective that the scores from now on are of."""
        self._objective = objective

    def best(self, outcome: Outcome, models: int) -> None:
        """Shows a better merge: its score, and how many models are in it."""
        self.status(f"best {scored(outcome.score, self._objective)}{self._precision}, {plural(models, 'model')}")

    def workers(self, state: WorkersState) -> None:
        """Shows how the workers are doing beside the bar, at most a few times a second."""
        if self._crew.take(state):
            self.status(self._status)

    def status(self, text: str) -> None:
        """Shows a line beside the bar, in the place of the one before."""
        self._status = showable(text)
        if self._bar is not None:
            self._bar.set_postfix_str("; ".join(filter(None, (self._crew.words(), self._status))))

    def say(self, text: str) -> None:
        """Shows a warning on a line of its own, which stays; other lines are dropped."""
        if str(text).startswith("warning:"):
            tqdm_of_here().write(showable(text), file=sys.stderr)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            if self._bar.total:  # one that is not full would stay, in red
                self._bar.total = self._bar.n = max(self._bar.n, 1)
            self._bar.close()
        self._bar = None

    def _move(self, done: float) -> None:
        if self._bar is not None and self._bar.total:
            self._bar.update(min(done, self._bar.total) - self._bar.n)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython is not loaded for the question."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None and hasattr(interactive, "get_ipython") else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def of_call(progress: Progress) -> None:
    """Has a bar taken away at the end of the call in progress; another progress is left alone."""
    bars = _SHOWN.get()
    if isinstance(progress, Bar) and bars is not None:
        bars.append(progress)


@contextmanager
def taken_away() -> Iterator[None]:
    """Takes away, at the end of a call, the bars that were made in it."""
    bars: list[Bar] = []
    token = _SHOWN.set(bars)
    try:
        yield
    finally:
        _SHOWN.reset(token)
        for bar in bars:
            bar.close()

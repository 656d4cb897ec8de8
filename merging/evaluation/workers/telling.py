"""A strategy that runs whole on a worker: what it does at the door is told, for the driver to do it again.

The driver's ledger counts, its journal keeps, its limits end the run: all that travels is what was asked, in order, and
what passes have given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.gradients import LiveGradients
from merging.evaluation.keys import Keys, Trial
from merging.evaluation.outputs import Outputs
from merging.evaluation.scorer import LiveScorer
from merging.evaluation.workers.recorder import Recorder
from merging.evaluation.workers.requests import Event, Kind, Made, Whole
from merging.plugins.task import HELD_OUT
from merging.values.outcome import Decision, Outcome
from merging.values.recipe import Merge, Recipe, Weights


class Telling:
    """Tells what is done, in order; of what is done within something that is told, only what passes have given.

    Args:
        send: takes each event.

    Attributes:
        before: called before anything is told.
    """

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send, self._within = send, False
        self._made: list[Made] = []
        self.before: Callable[[], None] = lambda: None

    def did(self, place: str, name: str, *given: Any, **named: Any) -> None:
        """Tells what needed no pass."""
        if not self._within:
            self.before()
            self._send(Event(place, name, given, named))

    @contextlib.contextmanager
    def doing(self, place: str, name: str, *given: Any, **named: Any) -> Iterator[None]:
        """Tells what the block does, once it has; where it fails the strategy does, on both sides."""
        if self._within:
            yield
            return
        self._within, self._made = True, []
        try:
            yield
        finally:
            self._within = False
        self.before()
        self._send(Event(place, name, given, named, tuple(self._made)))

    def made(self, made: Made) -> None:
        """Keeps what a pass has given, to go along."""
        self._made.append(made)


class Absent(Mapping[str, Tensor]):
    """Tensors of a merge that was only looked at: those that are not averaged, and the names of the others."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._names = tuple(tensors)
        self._here = {name: tensor for name, tensor in tensors.items() if not tensor.is_floating_point()}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._here:
            raise LookupError(f"tensor '{name}' is on the worker that has looked at it")
        return self._here[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _named(merged: Merge) -> Merge:
    """A merge as the driver needs it to count what it costs: weights by their hash."""
    return replace(merged, tensors=Absent(merged.tensors)) if isinstance(merged, Weights) else merged


class _Scorer(LiveScorer):
    """Makes passes, and tells what they have given."""

    def __init__(self, keys: Keys, scorer: LiveScorer, telling: Telling) -> None:
        super().__init__(keys, scorer.passes)
        self._telling = telling

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        outcome = super().measure(model, split, record=record)
        self._made(Kind.MEASURE, outcome)
        return outcome

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        found = super().logits(recipe, split, record=record)
        self._made(Kind.LOGITS, found, recipe, split)
        return found

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        found = super().exceeds(model, bar, easiness, checked=checked)
        self._made(Kind.TEST, found)
        return found

    def _made(self, kind: Kind, found: Any, recipe: Recipe | None = None, split: str = "") -> None:
        calibration = self._keys.calibration
        reached = None if calibration is None else calibration.statistics
        self._telling.made(Made(kind, (found, reached), recipe, split))


class _Ledger(Recorder):
    """Tells what is paid besides evaluations, and where the run may end."""

    def __init__(self, should_stop: Callable[[], bool], telling: Telling) -> None:
        super().__init__(should_stop)
        self._telling = telling

    def check(self, split: str = HELD_OUT) -> None:
        super().check(split)
        self._telling.did("ledger", "check", split)

    def pay(self, passes: float) -> None:
        super().pay(passes)
        self._telling.did("ledger", "pay", passes)


class _Outputs(Outputs):
    """Tells whose logits are asked for."""

    def __init__(self, keys: Keys, ledger: _Ledger, scorer: _Scorer, telling: Telling) -> None:
        super().__init__(keys, ledger, scorer)
        self._telling = telling

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        with self._telling.doing("outputs", "logits", recipe, split):
            return super().logits(recipe, split)


class _Evaluator(Evaluator):
    """Tells what is evaluated."""

    def __init__(self, keys: Keys, ledger: _Ledger, scorer: _Scorer, telling: Telling) -> None:
        super().__init__(keys, ledger, scorer, LiveGradients(keys, scorer.passes, ledger))
        self.outputs = _Outputs(keys, ledger, scorer, telling)
        self._telling, self._paths = telling, 0

    def evaluate(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        with self._telling.doing("evaluator", "evaluate", _named(merged), split):
            return super().evaluate(merged, split)

    def exceeds(self, merged: Merge, bar: Bar) -> Decision:
        with self._telling.doing("evaluator", "exceeds", _named(merged), bar):
            return super().exceeds(merged, bar)

    def between(
        self, incumbent: Recipe, candidate: Recipe, mixing: str, *, loss: bool = False
    ) -> Callable[[NDArray[np.float64]], Outcome]:
        look = super().between(incumbent, candidate, mixing, loss=loss)
        number, self._paths = str(self._paths), self._paths + 1
        self._telling.did("path", number, incumbent, candidate, mixing, loss=loss)

        def told(factors: NDArray[np.float64]) -> Outcome:
            with self._telling.doing("look", number, factors):
                return look(factors)

        return told


def telling_evaluator(
    scorer: LiveScorer, keys: Keys, telling: Telling, should_stop: Callable[[], bool], whole: Whole
) -> Evaluator:
    """The door that a strategy on a worker finds: it knows what the driver knows, and tells what is done.

    Args:
        scorer: makes passes with the worker's model.
        keys: keys of the evaluations.
        telling: takes what is done.
        should_stop: asked before each evaluation and between batches.
        whole: what is run.
    """
    ledger = _Ledger(should_stop, telling)
    ledger.learn(whole.knowledge)
    ledger.exact_savings = whole.exact_savings
    return _Evaluator(keys, ledger, _Scorer(keys, scorer, telling), telling)

"""A run without passes: how many evaluations it will make."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.errors import Stopped, StopReason
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.gradients import GRADIENT, SQUARES, Gradients
from merging.evaluation.keys import Trial
from merging.evaluation.ledger import Ledger
from merging.evaluation.remembered import Remembered
from merging.evaluation.scorer import Wanted
from merging.plugins.strategy import mixed
from merging.plugins.task import Task
from merging.plugins.watcher import Watcher
from merging.running.plan import Plan
from merging.running.session import Session
from merging.values.outcome import Decision, Meter, Outcome
from merging.values.recipe import Recipe, Weights

REHEARSAL = 20.0
"""Seconds after which a rehearsal ends; the run is then longer than what is said."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """A run that was rehearsed.

    Attributes:
        session: its session, whose ledger has asked for what the run will ask for.
        remembered: what earlier commands know of the real scores; None: nothing is asked of them.
        complete: whether it came to its end.
    """

    session: Session
    remembered: Remembered | None
    complete: bool

    @property
    def evaluator(self) -> Evaluator:
        """The door that has made the outcomes up.

        Raises:
            ValueError: there was no task.
        """
        if self.session.evaluator is None:
            raise ValueError("without a task nothing is evaluated")
        return self.session.evaluator

    @property
    def meter(self) -> Meter:
        """The meter of the whole run."""
        return self.evaluator.ledger.total


def rehearse(
    made: Plan, outputs: int, seconds: float = REHEARSAL, should_stop: Callable[[], bool] = lambda: False
) -> Rehearsal:
    """Runs baselines and strategy on outcomes that always rise: everything that is tried is kept.

    Args:
        made: the run's plan.
        outputs: number of the model's outputs.
        seconds: time after which the rehearsal is ended.
        should_stop: asked between evaluations; True ends it at once.

    Returns:
        What was asked for, and whether it came to its end.
    """
    end = time.perf_counter() + seconds
    watcher = Watcher(should_stop=lambda: time.perf_counter() > end or should_stop())
    session = Session.open(made, watcher=watcher)
    real, live = session.evaluator, made.live
    if real is None or live is None:
        raise ValueError("without a task nothing is evaluated")
    slopes = ImaginaryGradients(real.gradients, real.ledger, real.task, live.parameters)
    evaluator = Evaluator(real.keys, real.ledger, ImaginaryScorer(real.task, outputs, len(made.partition)), slopes)
    session = dataclasses.replace(session, evaluator=evaluator)
    try:
        for strategy in session.strategies:
            evaluator.ledger.begin()
            problem = session.problem(strategy)
            problem.rehearsed = True
            evaluator.evaluate(mixed(strategy, problem))  # as a run does, for its table
    except Stopped as stop:
        return Rehearsal(session, real.remembered, stop.reason is StopReason.LIMIT)
    return Rehearsal(session, real.remembered, True)


class ImaginaryScorer:
    """A scorer that makes outcomes up: each is better than all before, and logits are zero.

    Args:
        task: the data, of which nothing but the numbers of samples and classes is looked at.
        outputs: number of the model's outputs.
        components: number of the partition's components.
    """

    def __init__(self, task: Task, outputs: int, components: int) -> None:
        self._task, self._outputs, self._components, self._made = task, outputs, components, 0

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses no set, because no label is looked at."""

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        """Makes up the next outcome, at the price of a pass."""
        del model, split, record
        return self._next()

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        """Gives logits of zero, shape ``(N, classes)``, at the price of a pass."""
        del recipe, record
        whole = self._task.split(split)
        return whole.project(torch.zeros(len(whole), self._outputs)), 1.0

    def of_logits(self, logits: Tensor, split: str, *, record: bool = False) -> Outcome:
        """Makes up the next outcome; the logits are not looked at."""
        del logits, split, record
        return self._next()

    def costs(self) -> tuple[float, ...]:
        """Gives a whole pass for each component."""
        return (1.0,) * self._components

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        """Makes up the next outcome, after all samples."""
        del model, easiness, checked
        return bar.of(self._next()), 0.0

    def measured(self, merged: Recipe | Weights) -> tuple[dict[str, Tensor], float]:
        """Gives no statistics, because none are measured."""
        del merged
        return {}, 0.0

    foresees = False

    def foresee(self, wanted: Iterable[Wanted], *, first: bool = False) -> None:
        """Makes nothing beforehand: outcomes cost nothing here."""

    def _next(self) -> Outcome:
        self._made += 1
        count = len(self._task.held_out)
        return Outcome(score=float(self._made), samples=count, correct=np.packbits(np.ones(count, dtype=bool)))


class ImaginaryGradients:
    """Gradients that are zero, and counted as those of the model are.

    Args:
        real: gives batches, and the module.
        ledger: counts the samples.
        task: the data.
        parameters: the model's parameters, by name.
    """

    def __init__(self, real: Gradients, ledger: Ledger, task: Task, parameters: Mapping[str, Tensor]) -> None:
        self._real, self._ledger, self._task, self._parameters = real, ledger, task, parameters

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the split in random order: the real batches (model inputs, labels)."""
        return self._real.batches(split, generator, size)

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """A loss of one that nothing changes."""
        self._count(len(batch[1]))
        return 1.0, np.zeros(recipe.coefficients.shape)

    def blend(self, rows: Sequence[Recipe]) -> ImaginaryBlend:
        """Gives a mix of the rows that has no slope."""
        del rows
        return ImaginaryBlend(self._count)

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, generator: np.random.Generator, *, sampled: bool
    ) -> dict[str, Tensor]:
        """Gives zeros of the parameters' shapes."""
        del recipe, generator, sampled
        self._count(min(samples, len(self._task.split(split))), SQUARES)
        return {name: torch.zeros_like(p, device="cpu") for name, p in self._parameters.items()}

    def open(self, recipe: Recipe) -> nn.Module:
        """Opens the real module with the recipe's weights."""
        return self._real.open(recipe)

    def _count(self, samples: int, each: float = GRADIENT) -> None:
        self._ledger.check()
        self._ledger.pay(each * samples / len(self._task.held_out))


@dataclass(frozen=True)
class ImaginaryBlend:
    """A mix that has no slope.

    Attributes:
        count: told the number of samples of each gradient.
    """

    count: Callable[[int], None]

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """A loss of one that nothing changes."""
        del scale
        self.count(len(batch[1]))
        return 1.0, np.zeros(coefficients.shape), 0.0

    def slopes(self, table: Tensor, batch: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of tensors."""
        self.count(len(batch[1]))
        return torch.ones(()), torch.zeros_like(table), torch.zeros_like(scale)

    @property
    def home(self) -> torch.device:
        """The CPU: there is nothing to wait for."""
        return torch.device("cpu")

    @property
    def rows_in(self) -> str:
        """Rows that are not there take no room."""
        return "float32"

"""A run without passes: how many evaluations it will make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import Stopped, StopReason
from merging.evaluation.evaluator import Evaluator
from merging.plugins.progress import Silent
from merging.plugins.task import HELD_OUT
from merging.running.baselines import BASELINES
from merging.running.plan import Plan
from merging.running.problem import MergeProblem
from merging.storage.journal import Journal
from merging.values.outcome import Decision, Meter, Outcome
from merging.values.recipe import Merge, Recipe

REHEARSAL = 20.0
"""Seconds after which a rehearsal ends; the run is then longer than what is said."""


def rehearse(
    made: Plan, outputs: int, seconds: float = REHEARSAL, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Meter, bool]:
    """Runs baselines and strategy on outcomes that always rise: everything that is tried is kept.

    Args:
        made: the run.
        outputs: of the model.
        seconds: after which it is ended.
        should_stop: ends it at once.

    Returns:
        The meter of the whole run, and whether it came to its end.
    """
    if made.task is None or made.live is None or made.numerics is None:
        raise ValueError("without a task nothing is evaluated")
    end = time.perf_counter() + seconds
    evaluator = _Imagined(
        made.live,
        made.task,
        made.objective,
        made.numerics,
        Journal(None),
        limit=made.max_evaluations,
        should_stop=lambda: time.perf_counter() > end or should_stop(),
    )
    evaluator.outputs = outputs
    wanted = BASELINES if made.baselines else BASELINES[:1] if made.task.certify is not None else ()
    baselines = [b for b in wanted if b.name != made.strategy.name and len(made.pool) >= b.min_models]
    try:
        for strategy in (*baselines, made.strategy):
            evaluator.begin()
            problem = MergeProblem(
                made.pool,
                made.partition,
                evaluator,
                made.optimizer,
                Journal(None),
                Silent(),
                seed=made.seed,
                budget=made.budget,
            )
            evaluator.evaluate(strategy.mix(problem))  # as a run does, for its table
    except Stopped as stop:
        return evaluator.total, stop.reason is StopReason.LIMIT
    return evaluator.total, True


class _Imagined(Evaluator):
    """Counts what is asked for and makes it up: each outcome is better than all before, and gradients are zero."""

    outputs: int
    _made = 0

    def _imagined(self) -> Outcome:
        self._made += 1
        count = len(self.task.held_out)
        return Outcome(score=float(self._made), samples=count, correct=np.packbits(np.ones(count, dtype=bool)))

    def _measure(self, split: str, mix: Any, content: Any) -> Outcome:
        del split, mix, content
        return self._imagined()

    def _of_logits(self, logits: Tensor, split: str, passes: float, seconds: float) -> Outcome:
        del logits, split, seconds
        outcome = self._imagined()
        return Outcome(score=outcome.score, samples=outcome.samples, correct=outcome.correct, passes=passes)

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        del recipe, threshold
        self._check_limits(HELD_OUT)
        self._pay(1.0)
        return Decision(True, len(self.task.held_out))

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        self._through(self._key(self._content(recipe), split), split, self._imagined)
        whole = self.task.split(split)
        return whole.project(torch.zeros(len(whole), self.outputs))

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        self._count(len(batch[1]), 3.0)
        return 1.0, np.zeros(recipe.coefficients.shape)

    def blend(self, rows: Sequence[Recipe]) -> Any:
        del rows
        return _NoBlend(lambda samples: self._count(samples, 3.0))

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, generator: np.random.Generator, *, sampled: bool
    ) -> dict[str, Tensor]:
        del recipe, generator, sampled
        self._count(min(samples, len(self.task.split(split))), 4.0)
        return {name: torch.zeros_like(parameter, device="cpu") for name, parameter in self.live.parameters.items()}

    def recalibrated(self, merged: Merge) -> Merge:
        return merged

    def _count(self, samples: int, each: float) -> None:
        self._check_limits(HELD_OUT)
        self._pay(each * samples / len(self.task.held_out))


@dataclass(frozen=True)
class _NoBlend:
    count: Callable[[int], None]

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        del scale
        self.count(len(batch[1]))
        return 1.0, np.zeros(coefficients.shape), 0.0

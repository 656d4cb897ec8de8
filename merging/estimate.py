"""What a run will cost: its evaluations by a rehearsal without forward passes, its minutes from a timed batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import Stopped
from merging.evaluation.evaluator import Evaluator
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.recalibration import SAMPLES
from merging.plan import Plan
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import HELD_OUT, Task
from merging.problem import MergeProblem
from merging.run import BASELINES
from merging.storage.journal import Journal
from merging.values.outcome import Decision, Meter, Outcome
from merging.values.recipe import Merge, Recipe

REHEARSAL = 20.0
"""Seconds after which a rehearsal ends; the run is then longer than what is said."""
TIMED = 512
"""Samples of the timed batches at most."""


@dataclass(frozen=True)
class Cost:
    """A run's cost.

    Attributes:
        evaluations: distinct evaluations on the held-out data, baselines included, where every candidate that the
            strategy tries is worth going on with: about as many as there can be.
        passes: the same in whole forward passes; forward and backward count as 3.
        complete: False where the rehearsal was ended early: there are more.
        samples_per_second: of forward passes.
        pass_seconds: one pass over the held-out data.
        mix_seconds: one mix of two models in place.
        minutes: all of it, with the test sets at the end; savings by activations of earlier passes not taken off.
        batch: samples a batch.
        device: where it was timed.
    """

    evaluations: int
    passes: float
    complete: bool
    samples_per_second: float
    pass_seconds: float
    mix_seconds: float
    minutes: float
    batch: int
    device: str


def estimate(made: Plan, progress: Progress | None = None, should_stop: Callable[[], bool] = lambda: False) -> Cost:
    """Rehearses a run that is planned, and times its parts.

    Args:
        made: with a task. Its model's weights are overwritten.
        progress: told what happens.
        should_stop: ends the rehearsal at once.
    """
    progress, live, numerics, task = progress or Silent(), made.live, made.numerics, made.task
    if live is None or numerics is None or task is None:
        raise ValueError("without a task nothing is evaluated")
    with numerics.applied():
        progress.stage("timing a batch")
        recipes = [Recipe.single(row, made.partition) for row in made.pool.ingredients[:2]]
        live.load(recipes[0])
        inputs = task.held_out.inputs[: max(min(TIMED, 8 * numerics.batch), numerics.batch)]
        sample = _median(lambda: forward(live, numerics, task, inputs)) / len(inputs)
        mix = _median(lambda: _mix(live, recipes, len(made.partition)))
        outputs = forward(live, numerics, task, task.held_out.inputs[:2])
        progress.stage("rehearsing the run, without forward passes")
        meter, complete = rehearse(made, outputs, should_stop=should_stop)
    one = sample * len(task.held_out)
    merges = 1 + (len(BASELINES) if made.baselines else 0)
    tested = sum(len(split) for split in task.tests.values()) * merges if made.tests else 0
    if task.certify is not None:
        tested += 2 * len(task.certify)
    passes = meter.forward_equivalents
    measured = task.calibrates
    if made.recalibrate and measured is not None:  # of every average first; all but the single models are averages
        averages = max(0, meter.evaluations - len(made.pool))
        passes += averages * min(len(task.split(measured)), SAMPLES) / len(task.held_out)
    seconds = passes * one + meter.evaluations * mix + tested * sample
    return Cost(
        meter.evaluations, passes, complete, 1 / sample, one, mix, seconds / 60, numerics.batch, numerics.device
    )


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
        made.live, made.task, made.objective, made.numerics, Journal(None), limit=made.max_evaluations,
        should_stop=lambda: time.perf_counter() > end or should_stop(),
    )  # fmt: skip
    evaluator.outputs = outputs
    wanted = BASELINES if made.baselines else BASELINES[:1] if made.task.certify is not None else ()
    baselines = [b for b in wanted if b.name != made.strategy.name and len(made.pool) >= b.min_models]
    try:
        for strategy in (*baselines, made.strategy):
            evaluator.begin()
            problem = MergeProblem(
                made.pool, made.partition, evaluator, made.optimizer, Journal(None), Silent(), seed=made.seed,
                budget=made.budget,
            )  # fmt: skip
            evaluator.evaluate(strategy.mix(problem))  # as a run does, for its table
    except Stopped as stop:
        return evaluator.total, str(stop).startswith("--max")
    return evaluator.total, True


class _Imagined(Evaluator):
    """Counts what is asked for and makes it up: each outcome is better than all before, and gradients are zero."""

    outputs: int
    _made = 0

    def _imagined(self) -> Outcome:
        self._made += 1
        count = len(self.task.held_out)
        return Outcome(float(self._made), count, np.packbits(np.ones(count, dtype=bool)))

    def _measure(self, split: str, mix: Any, content: Any) -> Outcome:
        del split, mix, content
        return self._imagined()

    def _of_logits(self, logits: Tensor, split: str, passes: float, seconds: float) -> Outcome:
        del logits, split, seconds
        outcome = self._imagined()
        return Outcome(outcome.score, outcome.samples, outcome.correct, passes=passes)

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


def forward(live: LiveModel, numerics: Numerics, task: Task, inputs: Tensor) -> int:
    """Passes over some samples as the evaluator makes them; returns the number of outputs."""
    outputs = 0
    with torch.inference_mode():
        for part in inputs.split(numerics.batch):
            x = task.prepare(part.to(numerics.device))
            outputs = live.module(x.to(live.dtype) if x.is_floating_point() else x).shape[1]
    if numerics.device.startswith("cuda"):
        torch.cuda.synchronize(numerics.device)
    return outputs


def _mix(live: LiveModel, recipes: Sequence[Recipe], components: int) -> int:
    """A trial mix, made in place."""
    if len(recipes) > 1:
        live.set_ends(recipes[0], recipes[1])
        live.trial(np.full(components, 0.5), "lerp")
    return 0


def _median(work: Callable[[], int], rounds: int = 3) -> float:
    """Seconds, after one round that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)

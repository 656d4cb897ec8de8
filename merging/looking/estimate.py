"""What a run will cost: its evaluations by a rehearsal without forward passes, its minutes from a timed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from merging.forward.device import batch_for
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.recalibration import SAMPLES
from merging.forward.tuning import median_seconds
from merging.looking.foreseen import foreseen
from merging.plugins.objective import Objective
from merging.plugins.progress import Progress, Silent
from merging.plugins.sequences import Sequences, in_batches
from merging.plugins.task import Task
from merging.running.needs import ranks_models
from merging.running.plan import Plan
from merging.running.rehearsal import rehearse
from merging.values.recipe import Recipe
from merging.values.wording import plural

TIMED = 512
"""Samples of the timed batches at most."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The effort of a run before it begins, whatever the machine: evaluations and passes.

    Attributes:
        evaluations: distinct evaluations on the held-out data, baselines included, where every candidate that the
            strategy tries is worth going on with: about as many as there can be.
        passes: the same in whole forward passes; forward and backward count as 3.
        complete: False where the rehearsal was ended early: there are more.
    """

    evaluations: int
    passes: float
    complete: bool

    @property
    def words(self) -> str:
        """Evaluations and passes in words, as they are said before a run.

        >>> Effort(evaluations=12, passes=68.4, complete=True).words
        'about 12 evaluations if every candidate is worth a try, about 68 passes over the held-out data'
        >>> Effort(evaluations=1, passes=1.0, complete=False).words
        'more than 1 evaluation if every candidate is worth a try'
        """
        about = "about" if self.complete else "more than"
        evaluations = f"{about} {plural(self.evaluations, 'evaluation', ',')} if every candidate is worth a try"
        if round(self.passes) == self.evaluations:
            return evaluations
        passes = f"{self.passes:,.0f} pass{'' if round(self.passes) == 1 else 'es'}"
        return f"{evaluations}, {about} {passes} over the held-out data"


@dataclass(frozen=True, kw_only=True)
class Cost(Effort):
    """The cost of a run on this machine: its effort, and how long that will take.

    Attributes:
        samples_per_second: samples that pass forward in a second.
        pass_seconds: one pass over the held-out data.
        mix_seconds: one mix of two models in place.
        minutes: all of it, with the test sets at the end, but not what is known; savings by activations of earlier
            passes not taken off.
        batch: samples a batch.
        device: the device that it was timed on.
        scores: all that the run scores: evaluations, test sets, and passes for the record alone.
        known: scores of single models and of their average that earlier commands have measured; which others the run
            will ask for, nobody knows before.
        workers: how many are asked for, of whom one was timed; 0: none, or as many as a cluster has.
    """

    samples_per_second: float
    pass_seconds: float
    mix_seconds: float
    minutes: float
    batch: int
    device: str
    scores: int = 0
    known: int = 0
    workers: int = 0


def effort(made: Plan) -> Effort:
    """Rehearses a run that is planned; nothing is timed, and a pass over two samples says how many outputs there are.

    Args:
        made: the plan, with a task. Its model's weights are overwritten.
    """
    live, numerics, task = made.live, made.numerics, made.task
    if live is None or numerics is None or task is None:
        raise ValueError("without a task nothing is evaluated")
    with numerics.applied():
        live.load(Recipe.single(made.pool.ingredients[0], made.partition))
        rehearsal = rehearse(made, forward(live, numerics, task, task.held_out.inputs[:2]))
    meter = rehearsal.meter
    averages = max(0, meter.evaluations - len(made.pool))
    passes = meter.forward_equivalents + averages * _measuring(made, task)
    return Effort(evaluations=meter.evaluations, passes=passes, complete=rehearsal.complete)


def _measuring(made: Plan, task: Task) -> float:
    """Passes over the held-out data that measuring statistics of an average again is worth; 0: they are kept."""
    if not made.settings.rules.recalibrate or task.calibrates is None:
        return 0.0
    return min(len(task.split(task.calibrates)), SAMPLES) / len(task.held_out)


def estimate(made: Plan, progress: Progress | None = None, should_stop: Callable[[], bool] = lambda: False) -> Cost:
    """Rehearses a run that is planned, and times its parts.

    Args:
        made: the plan, with a task. Its model's weights are overwritten.
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
        sample = median_seconds(lambda: forward(live, numerics, task, inputs)) / len(inputs)
        mix = median_seconds(lambda: _mix(live, recipes, len(made.partition)))
        outputs = forward(live, numerics, task, task.held_out.inputs[:2])
        progress.stage("rehearsing the run, without forward passes")
        rehearsal = rehearse(made, outputs, should_stop=should_stop)
        ahead = foreseen(rehearsal)
    meter = rehearsal.meter
    one = sample * len(task.held_out)
    merges = len(rehearsal.session.strategies)
    tested = sum(len(split) for split in task.tests.values()) * merges if made.settings.rules.tests else 0
    if task.certify is not None:
        tested += 2 * len(task.certify)
    tested += _rescored(made, numerics, merges) * len(task.held_out) + of_pool(made)
    averages, measuring = max(0, meter.evaluations - len(made.pool)), _measuring(made, task)
    # statistics of every average are measured first; all but the single models are averages
    passes = meter.forward_equivalents + averages * measuring
    saved = ahead.evaluations + ahead.averages * measuring
    seconds = max(0.0, passes - saved) * one + max(0, meter.evaluations - ahead.evaluations) * mix
    seconds += max(0, tested - ahead.samples) * sample
    return Cost(
        evaluations=meter.evaluations,
        passes=passes,
        complete=rehearsal.complete,
        samples_per_second=1 / sample,
        pass_seconds=one,
        mix_seconds=mix,
        minutes=seconds / 60,
        batch=numerics.batch,
        device=numerics.device,
        scores=ahead.scores,
        workers=0 if made.settings.passes.crew is None else made.settings.passes.crew.count or 0,
        known=ahead.known,
    )


def _rescored(made: Plan, numerics: Numerics, merges: int) -> int:
    """Held-out passes that are made for the record alone: see :meth:`merging.evaluation.evaluator.Evaluator.record`."""
    if numerics.dtype != "float32" or numerics.compiled:
        return len(made.pool) + merges
    return merges if isinstance(made.objective, Objective) and not made.objective.counts_hits else 0


def of_pool(made: Plan) -> int:
    """Samples of the passes by which every model of the pool is scored alone, at the end (`pool_tests`)."""
    rules, task = made.settings.rules, made.task
    if task is None or len(made.pool) < 2 or not (rules.tests and rules.pool_tests):
        return 0
    models = len({ingredient.hash for ingredient in made.pool.ingredients})
    tested = models - rules.baselines  # the best one is scored on the test sets anyway
    unranked = 0 if rules.baselines or ranks_models(made.strategy) else models
    return tested * sum(len(split) for split in task.tests.values()) + unranked * len(task.held_out)


def forward(live: LiveModel, numerics: Numerics, task: Task, inputs: Tensor | Sequences) -> int:
    """Passes over some samples as the evaluator makes them; returns the number of outputs."""
    outputs = 0
    with torch.inference_mode():
        for part in in_batches(inputs, numerics.batch):
            outputs = live.module(batch_for(task, part, numerics.device, live.dtype)).shape[1]
    if numerics.device.startswith("cuda"):
        torch.cuda.synchronize(numerics.device)
    return outputs


def _mix(live: LiveModel, recipes: Sequence[Recipe], components: int) -> int:
    """A trial mix, made in place."""
    if len(recipes) > 1:
        live.set_ends(recipes[0], recipes[1])
        live.trial(np.full(components, 0.5), "lerp")
    return 0

"""``merging.interpolate``: the straight line between two models, scored point by point, and the barrier on it.

Linear mode connectivity (Frankle et al. 2020, https://arxiv.org/abs/1912.05671): models that were fine-tuned from one
start mostly have no barrier between them, and can be averaged; models with one cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError, TaskError
from merging.evaluation.steps import Steps
from merging.partitioners.whole import Whole
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.naming import Meant
from merging.plugins.objective import Objective
from merging.plugins.task import HELD_OUT
from merging.plugins.watcher import Watcher
from merging.running.cache import as_told
from merging.running.given import Parts
from merging.running.plan import plan
from merging.running.session import Session
from merging.running.settings import Settings, all_but
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.tasks.meant import task_of
from merging.values.frames import frame
from merging.values.recipe import Recipe
from merging.values.report import scored
from merging.values.shown import Sheet, Shown, grid
from merging.values.statistics import Interval, wilson
from merging.values.verdict import ACCURACY
from merging.values.wording import beginning, plural

if TYPE_CHECKING:
    from pandas import DataFrame

    from merging.drawing import Picture
    from merging.storage.ingredients import Models
    from merging.tasks.meant import TaskLike


@dataclass(frozen=True, kw_only=True, repr=False)
class Interpolation(Shown):
    """Scores along the line from one model to another.

    Attributes:
        first, second: names of the two models.
        objective: what the scores are.
        shares: shares of the second model, from 0 to 1.
        scores: set → score at each share; ``held-out`` among them.
        samples: set → number of samples.
    """

    first: str
    second: str
    objective: str
    shares: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]
    samples: dict[str, int]

    def barrier(self, name: str = HELD_OUT) -> float:
        """Measures how far the curve falls below the straight line between its ends, at most; 0 where it never does."""
        values = self.scores[name]
        lines = ((1 - share) * values[0] + share * values[-1] for share in self.shares)
        return max(line - value for line, value in zip(lines, values, strict=True))

    def intervals(self, name: str = HELD_OUT) -> tuple[Interval, ...]:
        """95 % interval of each point's accuracy, by its samples alone (Wilson); none of another objective's scores.

        All points are scored on the same samples, so that two of them differ by less than their intervals say.
        """
        count = self.samples.get(name, 0)
        if self.objective != ACCURACY or not count:
            return ()
        return tuple(wilson(value, count) for value in self.scores[name])

    def best(self, name: str = HELD_OUT) -> tuple[float, float]:
        """The share with the highest score, and that score; the first of equals."""
        values = self.scores[name]
        at = max(range(len(values)), key=lambda index: (values[index], -index))
        return self.shares[at], values[at]

    def to_frame(self) -> DataFrame:
        """The points as a long data frame, a set and a share a line.

        Columns: ``set``, ``share`` of the second model, ``score``, ``low`` and ``high`` (its 95 % interval, where
        it is an accuracy), ``samples``.

        Raises:
            RequirementError: there is no pandas.
        """
        rows = []
        for name, scores in self.scores.items():
            bounds = self.intervals(name) or ((None, None),) * len(scores)
            for share, score, (low, high) in zip(self.shares, scores, bounds, strict=True):
                point = {"set": name, "share": share, "score": score, "low": low, "high": high}
                rows.append(point | {"samples": self.samples.get(name)})
        return frame(rows, ("set", "share", "score", "low", "high", "samples"))

    def plot(self) -> Picture:
        """Draws the curve, with its intervals where the scores are accuracies.

        Returns:
            The picture: shown in a notebook, or saved by ``save("x.svg")``.
        """
        from merging.drawing import picture
        from merging.looking.pictures import curve

        return picture(partial(curve, self), name="line")

    def _sheet(self) -> Sheet:
        rows = []
        for name in self.scores:
            share, score = self.best(name)
            best = f"{scored(score, self.objective)} at {share:.2f}"
            rows.append([name, best, scored(self.barrier(name), self.objective)])
        facts = (f"{beginning(self.first, 40)} to {beginning(self.second, 40)}", f"{len(self.shares)} points")
        barrier = f"held-out barrier {scored(self.barrier(), self.objective)}" if HELD_OUT in self.scores else ""
        table = grid(("set", "highest, at the share of the second", "barrier"), rows)
        return Sheet(name="Interpolation", facts=(*facts, barrier), grids=(table,))

    def to_json(self) -> dict[str, Any]:
        """Gives shares, scores and barriers as JSON-ready values."""
        return {
            "first": self.first,
            "second": self.second,
            "objective": self.objective,
            "shares": list(self.shares),
            "scores": {name: list(values) for name, values in self.scores.items()},
            "samples": self.samples,
            "barriers": {name: self.barrier(name) for name in self.scores},
        }


OTHERS = all_but("device", "threads", "remember", "verify")
"""Settings that decide nothing along a line."""


@by_keyword(Settings, Watcher, without=OTHERS)
@as_told
def interpolate(
    pool: ModelPool | Models,
    task: TaskLike,
    *,
    steps: int = 10,
    tests: bool = False,
    objective: Meant[Objective] | None = None,
    settings: Settings = Settings(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Interpolation:
    """Scores ``(1 − s) · first + s · second`` for s = 0, 1/steps, …, 1.

    BatchNorm statistics are measured again at every point where the task has training data.

    Args:
        pool: two models, or what :meth:`ModelPool.open` makes them from.
        task: the model and its data; a task, or its name.
        steps: parts of the line, at least 2.
        tests: score the test sets too.
        objective: what the held-out score is; default: top-1 accuracy.
        settings: device and threads of passes, which are made in fp32.
        watcher: who is told, and is asked between batches.
        keywords: fields of these values by their own names, instead.

    Raises:
        MergingError: not two models, or model and data do not fit.
        Stopped: it was interrupted.
    """
    settings, watcher = given("interpolate", keywords, settings, watcher, without=OTHERS)
    progress = watcher.progress
    pool, task = ModelPool.open(pool), task_of(task)
    expected("steps", steps, int, "a number of parts of the line")
    expected("`tests`", tests, bool, "True or False")
    if len(pool) != 2:
        raise OptionError(f"a line needs two models, got {len(pool)}: {', '.join(pool.names[:4])}")
    if steps < 2:
        raise OptionError(f"{steps} steps make no curve; at least 2 are needed")
    progress.stage("reading the models")
    made = plan(
        pool,
        Best(),
        parts=Parts(partitioner=Whole(), objective=objective, task=task),
        progress=progress,
        device=settings.passes.device,
        threads=settings.passes.threads,
        precision="fp32",
        baselines=False,
    )
    evaluator = Session.open(made, watcher=watcher).evaluator
    if evaluator is None:
        raise TaskError("a curve needs a task")
    names = (HELD_OUT, *(task.tests if tests else ()))
    shares = tuple(step / steps for step in range(steps + 1))
    scores: dict[str, list[float]] = {name: [] for name in names}
    with evaluator.numerics.applied():
        first, second = (Recipe.single(row, made.partition) for row in pool.ingredients)
        sets = plural(len(task.held_out), "held-out sample", ",")
        sets += f" and {plural(len(names) - 1, 'test set')}" if names[1:] else ""
        progress.say(f"scoring {len(shares)} points of the line on {sets}: {len(shares) * len(names):,} passes")
        line = [first, *(first.lerp(second, 1 - share) for share in shares[1:-1]), second]
        steps_done = Steps(evaluator, progress, "along the line", line, names)
        for mixed in line:
            for name in names:
                scores[name].append(evaluator.evaluate(mixed, name).score)
                steps_done.done()
    samples = {name: len(task.split(name)) for name in names}
    return Interpolation(
        first=pool.names[0],
        second=pool.names[1],
        objective=made.objective.name,
        shares=shares,
        scores={name: tuple(found) for name, found in scores.items()},
        samples=samples,
    )

"""One evaluation on all workers, cut where batches begin: when that pays, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from merging.evaluation.keys import Keys, Trial
from merging.evaluation.parts import can_be_cut, cuts, joined
from merging.evaluation.workers.crew import Crew
from merging.evaluation.workers.requests import Kind
from merging.plugins.objective import Objective
from merging.plugins.task import HELD_OUT
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe, Weights

OVERHEAD = 0.002
"""Seconds that a request takes besides the pass."""
SHARE = 0.7
"""Share of what many workers could gain at the most from which on parts are taken; below it, speculation wins."""


class Sharing:
    """Evaluations in parts, each worker making the same samples every time, whose activations it keeps.

    What is decided by seconds is who makes a score, never which: parts have the bits of the whole.

    Args:
        keys: objective, data and batch.
        crew: the workers.
    """

    def __init__(self, keys: Keys, crew: Crew) -> None:
        self._keys, self._crew = keys, crew
        self._pace = 0.0  # seconds of a whole pass over the held-out data on one worker

    def saw(self, outcome: Outcome, split: str) -> None:
        """Learns from a pass what a whole one takes."""
        if split == HELD_OUT and outcome.passes > 0.5:
            self._pace = outcome.seconds / outcome.passes

    @property
    def pays(self) -> bool:
        """Whether each evaluation of a search is made by all workers, rather than several evaluations at once."""
        samples, workers = len(self._keys.task.held_out), self._crew.count
        if workers < 2 or not self._pace or self._keys.statistics or not isinstance(self._keys.objective, Objective):
            return False
        parts = cuts(self._keys.task.held_out.cuts(self._keys.numerics.batch), workers)
        largest = max(stop - start for start, stop in parts)
        gain = self._pace / (self._pace * largest / samples + OVERHEAD)
        return gain >= SHARE * workers

    def may(self, model: Recipe | Weights | Trial, split: str) -> bool:
        """Whether an evaluation is made in parts now."""
        return split == HELD_OUT and self.pays and can_be_cut(self._keys, model)

    def made(
        self, words: tuple[Any, str, bool], should_stop: Callable[[], bool]
    ) -> tuple[Outcome, frozenset[str] | None]:
        """The outcome of parts that all workers make at once.

        Args:
            words: model, split and whether it is of record, as a worker is asked.
            should_stop: asked while answers are awaited.

        Raises:
            Stopped: the run was interrupted.
        """
        model, split, record = words
        task, objective = self._keys.task, self._keys.objective
        places = cuts(task.split(split).cuts(self._keys.numerics.batch), self._crew.count)
        workers = self._crew.there
        jobs = [
            self._crew.ask(Kind.PART, (model, split, start, stop, record), worker=worker)
            for (start, stop), worker in zip(places, workers, strict=False)
        ]
        try:
            answers = [self._crew.wait(job, should_stop) for job in jobs]
        except BaseException:
            self._crew.drop(job for job in jobs if not job.done)
            raise
        if not isinstance(objective, Objective):
            raise TypeError("an objective that looks at the model takes whole evaluations")
        return joined([part for part, _ in answers], objective, task, split, record=record), answers[0][1]

"""Strategies that take gradients run whole on one worker, where a run has workers; the driver does it again.

What comes from there are events in the order in which the strategy does them. Each is done here too, by the same
methods, with what passes have given there: meters, journal, limits, observers and the best so far are those of a run
in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from merging.errors import Stopped, StopReason, StrategyError, WorkersError
from merging.plugins.strategy import MixStrategy, mixed, required
from merging.plugins.user_code import named, running
from merging.running.problem import MergeProblem
from merging.running.told import told
from merging.values.outcome import Outcome
from merging.values.recipe import Merge

if TYPE_CHECKING:
    from merging.evaluation.workers.crew import Job
    from merging.evaluation.workers.remote import RemoteScorer
    from merging.evaluation.workers.requests import Event

GRADIENTS = frozenset({"gradients", "per_sample_gradients"})
"""Needs of a strategy that runs whole on a worker."""
NEWS = ["stage", "advance", "search", "best", "decision", "status", "say", "precision", "measure", "unit", "workers"]
"""Methods of a progress, with those that it may do without."""


def run_strategy(strategy: MixStrategy, problem: MergeProblem) -> Merge:
    """Runs a strategy: here, or whole on a worker where it takes gradients and the run has workers.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns no merge, or cannot be sent to another process.
        WorkersError: it kills whoever runs it.
        Stopped: the run was interrupted or has used up its evaluations.
    """
    remote = problem.remote
    if remote is None or not required(strategy) & GRADIENTS:
        return mixed(strategy, problem)
    return _Followed(strategy, problem, remote).run()


class _Followed:
    """A strategy on a worker, as the driver follows it.

    Of a worker that is lost another one begins anew; what was done before is the same, and is not done again.
    """

    def __init__(self, strategy: MixStrategy, problem: MergeProblem, remote: RemoteScorer) -> None:
        self._strategy, self._problem, self._remote = strategy, problem, remote
        self._who, self._evaluator = named("strategy", strategy), problem.evaluator
        self._events: list[bytes] = []
        self._done = 0
        self._paths: dict[str, Callable[..., Outcome]] = {}

    def run(self) -> Merge:
        """Follows it to its end."""
        from merging.evaluation.workers.crew import KilledError

        crew, job = self._remote.crew, self._asked()
        try:
            while self._done < len(self._events) or not job.done:
                if self._done < len(self._events):
                    event, self._events[self._done] = crew.unpacked(self._events[self._done]), b""
                    self._done += 1
                    with running(self._who, self._strategy):
                        self._again(event)
                elif self._evaluator.ledger.interrupted():
                    raise Stopped(StopReason.INTERRUPTED)
                else:
                    crew.pump(0.1)
        finally:
            if not job.done:
                crew.drop([job])
        if isinstance(job.error, KilledError):
            raise WorkersError(f"{self._who} runs whole on a worker: {job.error}")
        if job.error is not None:
            raise job.error
        merged: Merge = job.answer
        return merged

    def _asked(self) -> Job:
        """Asks a worker for it.

        Raises:
            StrategyError: something in it belongs to this process.
        """
        from merging.evaluation.workers.requests import Kind, Whole

        ledger, progress, crew = self._evaluator.ledger, self._problem.progress, self._remote.crew
        news = tuple(name for name in NEWS if callable(getattr(progress, name, None)))
        run = partial(told, strategy=self._strategy, searching=self._problem.searching, news=news)
        try:
            whole = Whole(run, ledger.knowledge, ledger.exact_savings)
            job = crew.job(Kind.WHOLE, whole, short=False, on_part=lambda part: self._take(part, job))
        except TypeError as error:
            raise StrategyError(
                f"{self._who} takes gradients, so that a worker runs it, and it cannot be sent to one: {error}; give "
                "it options that can be pickled, or leave `workers` out"
            ) from None
        crew.hurry(job)
        return job

    def _take(self, part: tuple[int, Sequence[bytes]], job: Job) -> None:
        """Takes events, numbered from the beginning; those that are known are left out."""
        first, events = part
        new = events[max(len(self._events) - first, 0) :]
        self._events += new
        if new:
            job.killed = 0  # whoever died of it had not come so far: it does not kill at one place

    def _again(self, event: Event) -> None:
        """Does here what was done there."""
        match event.place:
            case "path":
                self._paths[event.name] = self._evaluator.between(*event.given, **event.named)
                return
            case "look":
                call = self._paths[event.name]
            case "evaluator":
                call = getattr(self._evaluator, event.name)
            case "outputs" | "ledger":
                call = getattr(getattr(self._evaluator, event.place), event.name)
            case "problem":
                call = getattr(self._problem, event.name)
            case place:
                call = getattr(getattr(self._problem, place), event.name)
        with self._remote.handed(event.made):
            call(*event.given, **event.named)

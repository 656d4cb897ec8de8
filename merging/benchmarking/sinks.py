"""Sinks of a benchmark: each of its runs is a run that they are told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.benchmarking.runs import Entry, MethodRun
from merging.errors import LIMIT_REACHED
from merging.plugins.progress import Progress
from merging.plugins.sink import Sink, SinkEnd, SinkRun
from merging.running.following import Followers, check
from merging.running.plan import Plan
from merging.storage.journal import plain


@dataclass(frozen=True)
class Sinks:
    """The sinks of a benchmark.

    Attributes:
        sinks: who is told; nobody by default.
        folder: the folder of the benchmark, or None.
    """

    sinks: Sequence[Sink] = ()
    folder: Path | None = None

    def check(self) -> None:
        """Says before any work what would keep sinks from theirs.

        Raises:
            MergingError: something is missing.
        """
        check(self.sinks, SinkRun(name=self._name, folder=self._place))

    def of(self, made: Plan, entry: Entry, progress: Progress) -> Followers:
        """The sinks of one run, to be used as a context.

        Args:
            made: the plan of that run.
            entry: which of the benchmark's runs it is.
            progress: told which sink is left out, and why.
        """
        header = plain(made.header(None)) if self.sinks else {}
        run = SinkRun(name=self._name, header=header, folder=self._place, part=entry.name)
        return Followers(self.sinks, run, progress)

    @property
    def _place(self) -> Path | None:
        return None if self.folder is None else self.folder.absolute()  # a plug-in may go to another folder

    @property
    def _name(self) -> str:
        return "benchmark" if self._place is None else self._place.name


def end_of_method(run: MethodRun) -> SinkEnd:
    """The end of a run that has a result."""
    told = {"ingredients": list(run.ingredients), "cached": run.cached, "inference_cost": run.inference_cost}
    limit = run.entry["max_evaluations"]
    costs = {"evaluations": run.evaluations, "forward_equivalents": run.forward_equivalents, "seconds": run.seconds}
    return SinkEnd(
        state="limit" if limit and run.why.startswith(LIMIT_REACHED.format(limit)) else "finished",
        why=run.why,
        scores={split: outcome.score for split, outcome in run.outcomes.items()},
        report={"entry": dict(run.entry), **costs, **told},
        coefficients={} if run.coefficients is None else run.coefficients.to_json(),
    )

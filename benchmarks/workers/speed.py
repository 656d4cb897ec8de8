"""One-thread workers on this machine against one of them, and against one process that has all cores.

Each pair is one run with one worker and one with several, in turns, by :mod:`benchmarks.search`'s SqueezeNets on PACS.
The time is that of the search alone, from the first score that is asked for to the last decision: workers have opened
everything by then, and nothing is written yet.

The bound (:mod:`benchmarks.workers.bound`) is for the decisions and seconds of the very run with one worker, where any
evaluation may be cut between its batches, as workers do here; that of whole evaluations stands beside it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import merging
from benchmarks.search import Made, pacs
from benchmarks.workers.bound import bound
from benchmarks.workers.program import Costs, Phase, asked, sequential
from benchmarks.workers.recorded import recorded
from merging.plugins.strategy import MixStrategy

MODELS, WORKERS = 8, 2
BUDGET = 12
"""Points of a search."""
FIRST = "scoring the single models"
"""The first stage of a run in which something is scored."""


class Clock(merging.Silent):
    """Notes when the first score is asked for, and when the last decision is told."""

    first = last = 0.0

    def stage(self, text: str, total: int | None = None) -> None:
        """Notes the first stage with scores."""
        del total
        if text == FIRST:
            self.first = time.perf_counter()

    def decision(self, facts: Mapping[str, Any]) -> None:
        """Notes a decision."""
        del facts
        self.last = time.perf_counter()


STRATEGIES: dict[str, MixStrategy] = {
    "greedy": merging.Greedy(),
    "manifoldmix": merging.ManifoldMix(tau=0.9, barrier=None),
}


@dataclass(frozen=True)
class Timed:
    """One run: seconds of its search and of all before it, what was decided, and its evaluations."""

    search: float
    before: float
    told: tuple[Any, ...]
    phases: list[Phase]
    costs: Costs

    @property
    def passes(self) -> float:
        """Seconds of its forward passes, one after the other."""
        return sequential(self.phases, Costs())

    def least(self, cut: str = "all") -> float:
        """The bound for several workers, in seconds."""
        return bound(self.phases, WORKERS, self.costs, cut=cut)


@dataclass(frozen=True)
class _Pair:
    """Runs with one worker and with several, and the default beside them."""

    one: Timed
    several: Timed
    alone: Timed

    @property
    def gain(self) -> float:
        return self.one.search / self.several.search

    @property
    def most(self) -> float:
        """The bound of that."""
        return self.one.passes / self.one.least()


def timed(made: Made, strategy: MixStrategy, workers: int | None, folder: Path) -> Timed:
    """Makes one run.

    Args:
        made: pool, task, partitioner.
        strategy: how they are merged.
        workers: how many; None: this process alone, with all cores.
        folder: where it is written to.
    """
    pool, task, partitioner, _ = made
    clock, began = Clock(), time.perf_counter()
    result = merging.merge(
        [str(checkpoint.path) for checkpoint in pool.checkpoints],
        strategy,
        partitioner=partitioner,
        task=task,
        budget=BUDGET,
        baselines=False,
        tests=False,
        remember=False,
        workers=workers,
        progress=clock,
        output=folder,
    )
    told = (result.report.decisions, (folder / "recipe.json").read_bytes())
    costs = Costs(batches=-(-len(task.held_out) // result.report.numerics["batch"]))
    return Timed(clock.last - clock.first, clock.first - began, told, recorded(folder), costs)


def compared(name: str, made: Made, strategy: MixStrategy, folder: Path, pairs: int) -> dict[str, Any]:
    """A row: pairs in turns, every second one the other way round, the default's runs after them.

    ``share_of_bound`` compares speed-ups; ``share_by_own_seconds`` compares the bound by the seconds that the passes
    took beside each other with the seconds of that run, so that what the cores cost each other is left out.
    """
    found = list[_Pair]()
    for number in range(pairs):
        runs = dict[int | None, Timed]()
        for count in (*((1, WORKERS) if number % 2 == 0 else (WORKERS, 1)), None):
            runs[count] = timed(made, strategy, count, folder / f"{number}-{count}")
        pair = _Pair(runs[1], runs[WORKERS], runs[None])
        if pair.one.told != pair.several.told:
            raise click.ClickException(f"{name}: {WORKERS} workers decide otherwise than one")
        found.append(pair)
        click.echo(json.dumps({"run": name, "seconds": [run.search for run in vars(pair).values()]}), err=True)
    phases, middle = found[0].one.phases, statistics.median
    shares = [pair.gain / pair.most for pair in found]
    return {
        "run": name,
        "workers": WORKERS,
        "pairs": pairs,
        "evaluations": asked(phases),
        "candidates": len(found[0].one.told[0]),
        "accepted": sum(bool(facts.get("accepted")) for facts in found[0].one.told[0]),
        "seconds_of_one_worker": middle(pair.one.search for pair in found),
        "seconds": middle(pair.several.search for pair in found),
        "seconds_before": middle(pair.several.before for pair in found),
        "speed_up": middle(pair.gain for pair in found),
        "speed_up_range": [min(pair.gain for pair in found), max(pair.gain for pair in found)],
        "bound": middle(pair.most for pair in found),
        "bound_of_whole": middle(pair.one.passes / pair.one.least("nothing") for pair in found),
        "share_of_bound": middle(shares),
        "share_range": [min(shares), max(shares)],
        "share_by_own_seconds": middle(pair.several.least() / pair.several.search for pair in found),
        "passes_slower": middle(pair.several.passes / pair.one.passes for pair in found),
        "default_seconds": middle(pair.alone.search for pair in found),
        "against_default": middle(pair.alone.search / pair.several.search for pair in found),
    }


def pool(folder: Path) -> Made:
    """The pool on PACS; one that was trained there before is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = len(list(folder.glob("seed_*.safetensors"))) == MODELS
    return pacs(folder, models=0 if trained else MODELS)

"""One-thread workers on this machine against one of them, and against one process that has all cores.

Each pair is one run with one worker and one with several, in turns, by :mod:`benchmarks.search`'s SqueezeNets on PACS.
The time is that of the search alone, from the first score that is asked for to the last decision: workers have opened
everything by then, and nothing is written yet. ``share_of_bound`` is the speed-up as a part of the bound
(:mod:`benchmarks.workers.bound`) for the decisions and seconds of the very run with one worker.
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
from benchmarks.workers.program import Costs, asked, sequential
from benchmarks.workers.recorded import recorded
from benchmarks.workers.schedule import Policy, simulate
from merging.plugins.strategy import MixStrategy

MODELS = 8
BUDGET = 20
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


@dataclass(frozen=True)
class Timed:
    """One run: seconds of its search, of all of it before, and of the forward passes."""

    search: float
    before: float
    passes: float
    told: tuple[Any, ...]


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
    seconds = sequential(recorded(folder), Costs())
    told = (result.report.decisions, (folder / "recipe.json").read_bytes())
    return Timed(clock.last - clock.first, clock.first - began, seconds, told)


def compared(name: str, made: Made, strategy: MixStrategy, folder: Path, workers: int, pairs: int) -> dict[str, Any]:
    """A row: pairs in turns, every second one the other way round, and the default's runs between them."""
    found = list[tuple[Timed, Timed, Timed, float]]()
    for number in range(pairs):
        runs, order = dict[int | None, Timed](), (1, workers) if number % 2 == 0 else (workers, 1)
        for count in (*order, None):
            runs[count] = timed(made, strategy, count, folder / f"{number}-{count}")
        one, several, alone = runs[1], runs[workers], runs[None]
        if one.told != several.told:
            raise click.ClickException(f"{name}: {workers} workers decide otherwise than one")
        phases = recorded(folder / f"{number}-1")
        found.append((one, several, alone, one.passes / bound(phases, workers, Costs())))
        row = {"search": one.search, "workers": several.search, "default": alone.search, "bound": found[-1][3]}
        click.echo(json.dumps({"run": name, **row}), err=True)
    middle = statistics.median
    gains = [one.search / several.search for one, several, *_ in found]
    shares = [gain / most for gain, (*_, most) in zip(gains, found, strict=True)]
    queue = simulate(phases, Policy(workers))
    return {
        "run": name,
        "workers": workers,
        "pairs": pairs,
        "evaluations": asked(phases),
        "candidates": len(one.told[0]),
        "accepted": sum(bool(facts.get("accepted")) for facts in one.told[0]),
        "seconds_of_one_worker": middle(one.search for one, *_ in found),
        "seconds": middle(several.search for _, several, *_ in found),
        "seconds_before": middle(several.before for _, several, *_ in found),
        "speed_up": middle(gains),
        "speed_up_range": [min(gains), max(gains)],
        "simulated": sequential(phases, Costs()) / queue.seconds,
        "bound": middle(most for *_, most in found),
        "share_of_bound": middle(shares),
        "share_range": [min(shares), max(shares)],
        "passes_slower": middle(several.passes / one.passes for one, several, *_ in found),
        "default_seconds": middle(alone.search for _, _, alone, _ in found),
        "against_default": middle(alone.search / several.search for _, several, alone, _ in found),
    }


def pool(folder: Path) -> Made:
    """The pool on PACS; one that was trained there before is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = len(list(folder.glob("seed_*.safetensors"))) == MODELS
    made = pacs(folder, models=0 if trained else MODELS)
    return made

"""Exploratory studies on pools that a step has trained: what the coefficients of a soup depend on.

``python -m benchmarks.soups study NAME POOL… --output DIR``, POOL a folder in the DIR of the steps. What a study finds
is kept row by row in docs/results/soups/studies/NAME.json; rows that are there are not made again. Nothing here
decides anything: the pools' shifts have been looked at.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import merging
from benchmarks.soups.design import RECORDS
from merging.plugins.registry import partitioners, strategies
from merging.plugins.task import Task
from merging.tasks.meant import task_of

FORMAT = "merging-soups-study/1"
SHOWN = ("held-out", "test", "average of shifts", "forward-equivalents")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One merge of a study.

    Attributes:
        facts: what it varies, as the study's table shows it.
        strategy: the strategy's name.
        options: its options.
        partitioner: the partitioner's name.
        samples: held-out samples that it is given; None: all.
        models: models of the pool in the order in which it is given them; None: all, as they are.
    """

    facts: Mapping[str, Any]
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    partitioner: str = "layer"
    samples: int | None = None
    models: tuple[int, ...] | None = None


def _samples(count: int) -> Iterator[Trial]:
    del count
    for samples, method in itertools.product((100, 225, 400, None), ("greedy", "learned", "affine")):
        facts = {"held-out samples": samples or "all", "method": method}
        yield Trial(facts=facts, strategy=method, samples=samples)


def _sizes(count: int) -> Iterator[Trial]:
    for size, method in itertools.product((4, 8, 12, count), ("uniform", "greedy", "learned", "affine")):
        yield Trial(facts={"models": size, "method": method}, strategy=method, models=tuple(range(size)))


def _partitions(count: int) -> Iterator[Trial]:
    del count
    for partitioner, method in itertools.product(("whole", "block", "layer"), ("learned", "affine")):
        facts = {"partition": partitioner, "method": method}
        yield Trial(facts=facts, strategy=method, partitioner=partitioner)


def _lengths(count: int) -> Iterator[Trial]:
    del count
    for steps, rate in ((140, 0.003), (70, 0.01), (140, 0.01), (280, 0.01), (420, 0.01), (140, 0.03)):
        facts = {"steps": steps, "rate": rate}
        yield Trial(facts=facts, strategy="affine", options={"steps": steps, "rate": rate})


def _blocks(count: int) -> Iterator[Trial]:
    """Blocks of models in the pool's order, in its reverse, and in two random ones."""
    orders: dict[str, Sequence[int]] = {"as it is": range(count), "reversed": range(count)[::-1]}
    orders |= {f"random {seed}": np.random.default_rng(seed).permutation(count).tolist() for seed in (1, 2)}
    for block, (order, models) in itertools.product((4, 8, count), orders.items()):
        facts = {"models a block": block, "order": order}
        yield Trial(facts=facts, strategy="affine", options={"block": block}, models=tuple(models))


STUDIES = {
    "samples": ("how many held-out samples", _samples),
    "sizes": ("how many models", _sizes),
    "partitions": ("how finely the network is divided", _partitions),
    "lengths": ("how many steps, at which rate", _lengths),
    "blocks": ("in which blocks and order models are learned", _blocks),
}


def scores(trial: Trial, files: Sequence[Path], task: Task, device: str) -> dict[str, float]:
    """Makes the merge of a trial and scores it on every set."""
    if trial.samples is not None:
        chosen = np.random.default_rng(0).permutation(len(task.held_out))[: trial.samples]
        task = replace(task, held_out=task.held_out.part(torch.from_numpy(chosen)))
    order = range(len(files)) if trial.models is None else trial.models
    result = merging.merge(
        {f"{place:02d}": str(files[index]) for place, index in enumerate(order)},  # a pool is sorted by names
        strategies[trial.strategy](**trial.options),
        task=task,
        partitioner=partitioners[trial.partitioner](),
        baselines=False,
        pool_tests=False,
        device=device,
    )
    row = next(row for row in result.report.rows if row.strategy == trial.strategy)
    shifted = float(np.mean([row.tests[name] for name in task.shifts]))
    found = (float(row.held_out or 0.0), row.tests["test"], shifted, result.report.forward_equivalents)
    return dict(zip(SHOWN, (round(value, 6) for value in found), strict=True))


@click.command("study")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.argument("pools", nargs=-1, required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the steps.")
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, help="Folder of the records.")
@click.option("--device", default="auto", show_default=True)
def study(name: str, pools: Iterable[str], output: Path, records: Path, device: str) -> None:
    """Make the rows of a study that are missing, on pools that a step has trained."""
    title, trials = STUDIES[name]
    file = records / "studies" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = (
        json.loads(file.read_bytes()) if file.is_file() else {"format": FORMAT, "study": title, "rows": []}
    )
    for pool in pools:
        folder = output / pool
        if not (folder / "pool").is_dir():
            raise click.UsageError(f"no trained pool in {folder}; python -m benchmarks.soups step {pool} trains it")
        files = sorted((folder / "pool").glob("model_*.safetensors"))
        task = task_of(folder / "task.toml", trust_code=True)
        for trial in trials(len(files)):
            told = {**trial.facts, "pool": pool}
            if any(told.items() <= row.items() for row in found["rows"]):
                continue
            row = told | scores(trial, files, task, device)
            found |= {"by": list(trial.facts), "show": list(SHOWN), "percent": list(SHOWN[:3])}
            found["rows"].append(row)
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            click.echo(row)

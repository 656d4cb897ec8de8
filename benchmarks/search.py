"""A whole manifold mix with exact savings against one whose every evaluation is a whole pass.

``python -m benchmarks.search --json``. Both must ask for the same points, decide the same and end with the same recipe.
The pools: the built-in digits, and SqueezeNet 1.1 fine-tuned four times on PACS (photo, art painting, cartoon).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import merging
from benchmarks.common import chosen, data_folder, json_option, only_option, part, show
from merging.data.images import normalise
from merging.data.npz import load_npz
from merging.models.catalogue import model_source
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool

Made: TypeAlias = tuple[ModelPool, Task, Partitioner, MixStrategy]


def digits(folder: Path) -> Made:
    """The built-in task."""
    del folder
    task = merging.load_task("digits")
    assert task.pool is not None  # noqa: S101 (for the type checker)
    return task.pool(), task, merging.ClipC8(), merging.ManifoldMix()


def pacs(folder: Path, *, models: int = 4, steps: int = 120, seed: int = 0, tested: bool = False) -> Made:
    """SqueezeNet fine-tuned with different seeds and learning rates; every tenth image is held out.

    ``tested``: every tenth image but five is a test set, and sketches are one.

    Its models are far apart, and the strategy would search nowhere: τ is lowered, so that there is a search to time.
    """
    source = model_source("torchvision:squeezenet1_1")
    prepare = normalise(source.transform())
    domains = [load_npz(f"{data_folder() / 'pacs96.npz'}:{name}") for name in ("photo", "art_painting", "cartoon")]
    held_out = _joined([part(split, 0, len(split), 10) for split in domains])
    inputs, labels = (torch.cat([getattr(split, name) for split in domains]) for name in ("inputs", "labels"))
    seen = torch.ones(len(labels), dtype=torch.bool)
    tests, start = {}, 0
    for split in domains:
        seen[start : start + len(split) : 10] = False
        if tested:
            seen[start + 5 : start + len(split) : 10] = False
        start += len(split)
    if tested:
        tests["test"] = _joined([part(split, 5, len(split), 10) for split in domains])
        tests["sketch"] = load_npz(f"{data_folder() / 'pacs96.npz'}:sketch")
    inputs, labels = inputs[seen], labels[seen]
    for number in range(seed, seed + models):
        module = source.module(7).to(memory_format=torch.channels_last).train()
        module.load_state_dict(load_file(data_folder() / "squeezenet1_1_imagenet_backbone.safetensors"), strict=False)
        optimizer = torch.optim.AdamW(module.parameters(), lr=(2e-4, 3e-4, 4e-4, 3e-4)[number % 4])
        generator = torch.Generator().manual_seed(number)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            for _ in range(steps):
                index = torch.randint(len(labels), (32,), generator=generator)
                optimizer.zero_grad()
                F.cross_entropy(module(prepare(inputs[index])), labels[index]).backward()
                optimizer.step()
        state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, folder / f"seed_{number}.safetensors")
    task = Task(name="pacs", build=source.build, held_out=held_out, tests=tests, prepare=prepare)
    return ModelPool.open([folder]), task, merging.Block(count=5), merging.ManifoldMix(tau=0.9, budget=60, barrier=None)


def _joined(splits: list[Split]) -> Split:
    return Split.of(torch.cat([split.inputs for split in splits]), torch.cat([split.labels for split in splits]))


POOLS: dict[str, Callable[[Path], Made]] = {"digits": digits, "pacs": pacs}
OPTIMIZERS: dict[str, Optimizer] = {"nevergrad-cobyla": merging.NevergradCobyla(), "coordinate": merging.Coordinate()}


def measure(made: Made, optimizer: Optimizer, folder: Path, budget: int | None) -> dict[str, Any]:
    """One row: a run with savings and a run without; ``fewer`` is the factor in forward-equivalents."""
    pool, task, partitioner, strategy = made
    told, spent, passes = [], [], list[float]()
    for exact in (True, False):
        where = folder / f"{optimizer.name}-{exact}"
        result = merging.merge(
            pool,
            strategy,
            partitioner=partitioner,
            optimizer=optimizer,
            task=task,
            tests=False,
            budget=budget,
            output=where,
            exact_savings=exact,
        )
        events = [json.loads(line) for line in (where / "events.jsonl").read_text("utf-8").splitlines()]
        points = [(event["key"], event["score"]) for event in events if event["event"] == "evaluation"]
        told.append((result.merge.to_json(), result.report.decisions, points))  # type: ignore[union-attr]
        spent.append(result.report.wall_seconds)
        passes.append(result.report.forward_equivalents)
    return {
        "evaluations": result.report.evaluations,
        "from_memory": result.report.cached,
        "forward_equivalents": passes[0],
        "compared_forward_equivalents": passes[1],
        "fewer": passes[1] / passes[0],
        "same_run": told[0] == told[1],
        "seconds": spent[0],
        "compared_seconds": spent[1],
        "factor": spent[1] / spent[0],
    }


@click.command()
@only_option
@click.option("--budget", type=int, help="Evaluations per search; default: the strategy's (digits: 250).")
@json_option
def main(only: str | None, budget: int | None, as_json: bool) -> None:
    """A manifold mix with exact savings on, against off."""
    rows = []
    for name, make, folder in chosen(POOLS, only):
        (folder / "pool").mkdir()
        made = make(folder / "pool")
        for optimizer in OPTIMIZERS.values():
            rows.append({"task": name, "optimizer": optimizer.name, **measure(made, optimizer, folder, budget)})
            click.echo(json.dumps(rows[-1]), err=True)
    show("search", rows, as_json=as_json)


if __name__ == "__main__":
    main()

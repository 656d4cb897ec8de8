"""Timing in interleaved pairs, and the models and data that the benchmarks of the evaluator share."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from merging.data.images import normalise
from merging.data.npz import load_npz
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.objectives.nll import NegativeLogLikelihood
from merging.plugins.partitioner import Partitioner
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.values.recipe import Recipe

Call = Callable[[], object]
T = TypeVar("T")

only_option = click.option("--only", help="Part of a subject's name.")
pairs_option = click.option("--pairs", "count", type=int, default=7, show_default=True)
json_option = click.option("--json", "as_json", is_flag=True)


def chosen(subjects: Mapping[str, T], only: str | None) -> Iterator[tuple[str, T, Path]]:
    """Subjects whose name has ``only`` in it, each with a temporary folder, which is gone when the next one comes."""
    for name, subject in subjects.items():
        if only is None or only in name:
            with tempfile.TemporaryDirectory() as folder:
                yield name, subject, Path(folder)


def data_folder() -> Path:
    """Where pacs96.npz and the SqueezeNet backbone are, by MERGING_TEST_DATA."""
    folder = os.environ.get("MERGING_TEST_DATA")
    if not folder:
        raise click.UsageError("set MERGING_TEST_DATA to the folder of pacs96.npz")
    return Path(folder)


def seconds(call: Call) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def pairs(one: Call, other: Call, count: int = 7) -> dict[str, Any]:
    """Both in turns, after one unmeasured call each; every second pair the other way round.

    Returns:
        Median seconds of both, and the median of the pairs' quotients ``one / other`` with its extremes.
    """
    one(), other()
    times: list[tuple[float, float]] = []
    for number in range(count):
        if number % 2:
            second, first = seconds(other), seconds(one)
        else:
            first, second = seconds(one), seconds(other)
        times.append((first, second))
    quotients = sorted(first / second for first, second in times)
    return {
        "seconds": statistics.median(first for first, _ in times),
        "compared_seconds": statistics.median(second for _, second in times),
        "quotient": statistics.median(quotients),
        "range": [quotients[0], quotients[-1]],
        "pairs": count,
    }


def show(name: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Prints the rows, as JSON with the machine or as lines."""
    if as_json:
        machine = {"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}
        about = {"benchmark": name, **machine, "python": platform.python_version()}
        click.echo(json.dumps({**about, "rows": rows}, indent=1))
        return
    for row in rows:
        click.echo(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


def evaluator(
    pool: ModelPool, task: Task, partitioner: Partitioner, *, precision: str = "auto", **settings: Any
) -> Evaluator:
    """The evaluator of a run, without the run."""
    made = plan(
        pool, Uniform(), partitioner=partitioner, task=task, objective=NegativeLogLikelihood(), precision=precision
    )
    assert made.live is not None  # noqa: S101 (for the type checker)
    assert made.numerics is not None  # noqa: S101
    torch.set_num_threads(made.numerics.threads)
    return Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)), **settings)


def trials(made: Evaluator, moved: Callable[[list[str]], list[int]] | None = None) -> Callable[[], object]:
    """A function that evaluates another point at each call.

    Args:
        made: its pool's first two models are the ends.
        moved: which components change from call to call, of their names; default: all.
    """
    partition = made.keys.partition
    ends = [Recipe.single(ingredient, partition) for ingredient in made.scorer.live.pool.ingredients[:2]]
    path = made.between(ends[0], ends[1], "lerp")
    generator = np.random.default_rng(0)
    places = moved(list(partition.names)) if moved else list(range(len(partition)))
    factors = np.full(len(partition), 0.5)

    def trial() -> object:
        nonlocal factors
        factors = factors.copy()
        factors[places] = generator.random(len(places)).astype(np.float32)
        return path(factors)

    return trial


def vit_b32(
    folder: Path,
    images: int = 256,
    *,
    models: int = 2,
    classes: int = 1000,
    spec: str = "open_clip:ViT-B-32-quickgelu",
) -> tuple[ModelPool, Task]:
    """Open_clip's ViT-B/32, or another model, with random weights, and random images of its size."""
    source = model_source(spec)
    module = source.module(classes)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, *(source.sides or (224, 224)), 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (images,), generator=generator)
    return noisy(module, folder, models), _task(source, Split.of(pixels, labels))


def squeezenet(folder: Path, images: int = 1024, *, models: int = 2) -> tuple[ModelPool, Task]:
    """SqueezeNet 1.1 with its ImageNet backbone and a head for PACS's 7 classes, two noisy copies; 96-pixel images."""
    source = model_source("torchvision:squeezenet1_1")
    module = source.module(7)
    module.load_state_dict(load_file(data_folder() / "squeezenet1_1_imagenet_backbone.safetensors"), strict=False)
    split = load_npz(f"{data_folder() / 'pacs96.npz'}:art_painting")
    return noisy(module, folder, models), _task(source, part(split, 0, images))


def part(split: Split, start: int, stop: int, step: int = 1) -> Split:
    """Some samples of a split."""
    return Split.of(split.inputs[start:stop:step], split.labels[start:stop:step])


def _task(source: ModelSource, held_out: Split) -> Task:
    return Task(name=source.spec, build=source.build, held_out=held_out, prepare=normalise(source.transform()))


def noisy(module: nn.Module, folder: Path, models: int) -> ModelPool:
    """A pool of copies, each with 1 % of noise on every tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(models):
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        for tensor in state.values():
            if tensor.numel() > 1:
                tensor += 0.01 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        save_file(state, folder / f"model_{number}.safetensors")
    return ModelPool.open([folder])

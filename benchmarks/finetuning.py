"""Milliseconds a step of fine-tuning against those of the bare step, on this machine's best device.

``python -m benchmarks.finetuning --json`` on a GPU; on a CPU give ``--images 64 --steps 1``. A step of
fine-tuning takes a batch of stored images, augments and normalises it, and trains by it. The bare step is forward,
backward and optimizer on one batch that lies ready on the device: same module, precision and optimizer. ``--pool N``
also trains a pool of N models by the sweep of :mod:`benchmarks.pacs`, base scored and models written. Images and
weights are random, so that no data are needed: times are those of real ones, accuracies are not.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from benchmarks.common import json_option, pairs, seconds, show
from benchmarks.pacs import SWEEP
from merging.data.images import normalise
from merging.forward.device import batch_for, on_device
from merging.forward.numerics import Numerics
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.plugins.task import Split, Task
from merging.training.finetune import finetune
from merging.training.hyperparameters import HyperParameters, Sweep
from merging.training.trainer import Run

CLASSES = 7
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "flip": {"augmentation": "flip"},
    "crop": {"augmentation": "crop"},
    "wide-affine": {"augmentation": "wide-affine"},
    "crop and mixup": {"augmentation": "crop", "mixup": 0.2, "label_smoothing": 0.1},
    "policy": {"augmentation": "rand-m5-mstd0.5"},
}
"""What a step does besides training."""


def made(
    model: str = "torchvision:squeezenet1_1", images: int = 2227, size: int = 96, held_out: int = 748
) -> tuple[ModelSource, Task]:
    """A model, and a task of random pictures for it; as many and as large as the PACS of :mod:`benchmarks.pacs`.

    Args:
        model: its name, such as ``torchvision:squeezenet1_1``.
        images: training samples.
        size: their side, in pixels.
        held_out: held-out samples.
    """
    source, generator = model_source(model), torch.Generator().manual_seed(0)

    def drawn(count: int) -> Split:
        pixels = torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
        return Split.of(pixels, torch.randint(0, CLASSES, (count,), generator=generator))

    prepare = normalise(source.transform())
    return source, Task(
        name="random", build=source.build, held_out=drawn(held_out), train=drawn(images), prepare=prepare
    )


def started(source: ModelSource, task: Task, batch: int, settings: dict[str, Any], device: str) -> Run:
    """A run that could go on for a long time."""
    module = source.module(CLASSES)
    numerics = Numerics.choose(device, module, task.held_out.inputs[0], "fp32")
    return Run(module, task, HyperParameters(batch_size=batch, epochs=1000, **settings), numerics=numerics)


def bare(run: Run, batch: int) -> Callable[[], None]:
    """A step of a run's module and optimizer on a batch that lies ready on its device."""
    task, device = run.task, torch.device(run.numerics.device)
    inputs, labels = batch_for(task, task.training.inputs[:batch], device), task.training.labels[:batch]
    targets, module = on_device(labels, device), run.module
    module.train()

    def step() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = module(inputs)
        cross_entropy(logits.float(), targets).backward()
        run.optimizer.step()

    return step


def several(step: Callable[[], None], steps: int, device: str) -> None:
    """Makes some steps, and waits until they are done."""
    for _ in range(steps):
        step()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure(kind: str, run: Run, batch: int, steps: int, count: int) -> dict[str, Any]:
    """One kind's row: interleaved pairs of so many steps each."""
    device = run.numerics.device
    with run.numerics.applied(tf32=True):
        found = pairs(
            partial(several, run.step, steps, device), partial(several, bare(run, batch), steps, device), count
        )
    return {
        "step": kind,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "passes": run.numerics.words,
        "batch": batch,
        "milliseconds": 1e3 * found["seconds"] / steps,
        "bare_milliseconds": 1e3 * found["compared_seconds"] / steps,
        "ratio": found["quotient"],
        "range": found["range"],
        "steps": steps,
        "pairs": count,
    }


def pool(make: Callable[[], tuple[ModelSource, Task]], models: int, jobs: int = 1) -> dict[str, Any]:
    """Seconds of a whole pool, its base's held-out score and its files included.

    Args:
        make: gives source and task; other processes call it too.
        models: how many are trained.
        jobs: processes that do it.
    """
    source, task = make()
    sweep = Sweep.of(tomllib.loads(SWEEP))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.safetensors")
        save_file(source.module(CLASSES).state_dict(), base)
        given: dict[str, Any] = {"models": models, "base": base, "jobs": jobs}
        took = seconds(lambda: finetune(partial(_task, make), Path(folder, "pool"), sweep, **given))
    epochs = sum(sweep.settings(index, 0)["epochs"] for index in range(models))
    steps = epochs * (len(task.training) // 32)
    return {"pool": models, "jobs": jobs, "seconds": took, "steps": steps, "milliseconds_a_step": 1e3 * took / steps}


def _task(make: Callable[[], tuple[ModelSource, Task]]) -> Task:
    return make()[1]


def rows(source: ModelSource, task: Task, batch: int = 32, *, steps: int = 40, count: int = 5) -> list[dict[str, Any]]:
    """A row for each kind of step."""
    return [
        measure(kind, started(source, task, batch, settings, "auto"), batch, steps, count)
        for kind, settings in KINDS.items()
    ]


@click.command()
@click.option("--model", default="torchvision:squeezenet1_1", show_default=True)
@click.option("--images", type=int, default=2227, show_default=True, help="Training samples.")
@click.option("--size", type=int, default=96, show_default=True, help="Side of an image, in pixels.")
@click.option("--batch", type=int, default=32, show_default=True)
@click.option("--steps", type=int, default=40, show_default=True, help="Steps of one timing, of which there are 6.")
@click.option("--pool", "models", type=int, default=0, show_default=True, help="Models of a pool to train besides.")
@click.option("--jobs", type=int, multiple=True, default=[1], help="Processes that train it; may be repeated.")
@json_option
def main(
    model: str, images: int, size: int, batch: int, steps: int, models: int, jobs: Sequence[int], as_json: bool
) -> None:
    """A step of fine-tuning ÷ the bare step, for each kind of step, and seconds of a pool."""
    make = partial(made, model, images, size)
    found = rows(*make(), batch, steps=steps)
    found += [pool(make, models, count) for count in jobs if models]
    show("finetuning", found, as_json=as_json)


if __name__ == "__main__":
    main()

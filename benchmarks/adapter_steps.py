"""What training an adapter costs beside training the whole model: parameters, bytes, optimizer state, time a step.

    pip install 'merging[adapters]'
    python -m benchmarks.adapter_steps [--json]

Steps of both take turns in one process, batches are random images; times are those of this process's CPU. Of the
digits' CLIP the base is the shipped one, of timm's ViT-Tiny it is random, which no figure here depends on.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import click
from torch import nn

from benchmarks.common import json_option, show
from benchmarks.finetuning import made
from merging.forward.numerics import Numerics
from merging.models.catalogue import model_source
from merging.plugins.task import Task
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.tasks.digits import digits
from merging.tasks.digits_data import POOL
from merging.training.adapters import Adapters
from merging.training.folder import save
from merging.training.hyperparameters import HyperParameters, LoraParameters
from merging.training.trainer import Run

RANK = 8


def digits_clip() -> tuple[nn.Module, Task, int]:
    """The digits' base, the task, and a usual batch."""
    task, base = digits(), Checkpoint(POOL / "base.safetensors")
    module = task.build(ModelPool([base]))
    module.load_state_dict(base.load())
    return module, task, 24


def vit_tiny() -> tuple[nn.Module, Task, int]:
    """A ViT-Tiny of timm for random pictures of 224 pixels."""
    name = "timm:vit_tiny_patch16_224"
    _, task = made(name, images=64, size=224, held_out=8)
    return model_source(name).module(7), task, 16


def row(name: str, module: nn.Module, task: Task, batch: int, steps: int) -> dict[str, Any]:
    """Measures one model."""
    adapters = Adapters.of("lora", module, frozenset(), task, Path("base"))
    numerics = Numerics.choose("cpu", module, task.held_out.inputs[0], "fp32", threads=1)
    settings = {"epochs": 1000, "batch_size": batch}
    lora = LoraParameters(rank=RANK, **settings)  # type: ignore[arg-type]
    usual = HyperParameters(**settings)  # type: ignore[arg-type]
    modules = {"adapter": adapters.adapted(copy.deepcopy(module), lora, "cpu"), "whole": module}
    times: dict[str, list[float]] = {kind: [] for kind in modules}
    sizes, held = dict[str, int](), dict[str, int]()
    with numerics.applied(tf32=True):
        trained = {
            kind: Run(part, task, lora if kind == "adapter" else usual, numerics=numerics)
            for kind, part in modules.items()
        }
        for number in range(steps + 2):
            for kind, run in trained.items():
                began = time.process_time()
                run.step()
                if number > 1:  # the first ones make room
                    times[kind].append(time.process_time() - began)
    with tempfile.TemporaryDirectory() as folder:
        for kind, run in trained.items():
            place = Path(folder) / kind
            save(place, run.module)
            sizes[kind] = sum(file.stat().st_size for file in ([place] if place.is_file() else place.iterdir()))
            held[kind] = sum(own.numel() for group in run.optimizer.param_groups for own in group["params"])
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    return {
        "model": name,
        "trained": f"{held['adapter']:,} of {held['whole']:,} ({held['adapter'] / held['whole']:.1%})",
        "bytes": f"{sizes['adapter']:,} of {sizes['whole']:,} ({sizes['adapter'] / sizes['whole']:.1%})",
        "ms a step": f"{1000 * medians['adapter']:.1f} of {1000 * medians['whole']:.1f}",
        "ratio": round(medians["adapter"] / medians["whole"], 2),
    }


@click.command()
@click.option("--steps", default=30, show_default=True, help="Steps of each that are timed.")
@json_option
def main(steps: int, as_json: bool) -> None:
    """Adapters of rank 8 against whole models, a row a model."""
    warnings.simplefilter("ignore")
    makers = {"digits (CLIP, 24 images)": digits_clip, "timm:vit_tiny_patch16_224 (16 images)": vit_tiny}
    rows = []
    for name, make in makers.items():
        module, task, batch = make()
        rows.append(row(name, module, task, batch, steps))
    show("adapter steps", rows, as_json=as_json)


if __name__ == "__main__":
    main()

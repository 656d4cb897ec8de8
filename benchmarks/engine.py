"""The evaluator against the bare forward pass: what mixing, normalising and scoring cost on top.

``python -m benchmarks.engine --json``. Both run the same module with the same batches, memory layout, threads and
dtype in inference mode. The bare pass has its batches normalised in memory and computes logits only; the evaluator
mixes a new point, normalises uint8 images, and scores. Exact savings are off. Bar: 0.97 ≤ ratio ≤ 1.05.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import (
    chosen,
    evaluator,
    json_option,
    only_option,
    pairs,
    pairs_option,
    show,
    squeezenet,
    trials,
    vit_b32,
)
from merging.forward.device import batch_for
from merging.machine import PRECISIONS
from merging.partitioners.block import Block
from merging.partitioners.clip import ClipC8
from merging.plugins.task import Task
from merging.storage.pool import ModelPool

SUBJECTS: dict[str, tuple[Callable[..., tuple[ModelPool, Task]], Any, int]] = {
    "squeezenet1_1 96 px": (squeezenet, Block(), 1024),
    "ViT-B/32 224 px": (vit_b32, ClipC8(), 256),
}


def measure(name: str, folder: Path, images: int | None, count: int, precision: str = "auto") -> dict[str, Any]:
    """One subject's row."""
    make, partitioner, default = SUBJECTS[name]
    pool, task = make(folder, images or default)
    made = evaluator(pool, task, partitioner, precision=precision, cache_memory=0)
    size = made.numerics.batch
    with torch.inference_mode():
        batches = [
            batch_for(task, part, made.numerics.device, made.scorer.live.dtype).clone(
                memory_format=torch.preserve_format
            )
            for part in task.held_out.inputs.split(size)
        ]

    def bare() -> None:
        with torch.inference_mode():
            logits = [made.scorer.live.module(batch) for batch in batches]
        logits[-1].cpu()  # a GPU has done all of them then; the evaluator waits for its scores too

    found = pairs(trials(made), bare, count)
    return {
        "subject": name,
        "dtype": made.numerics.dtype,
        "images": len(task.held_out),
        "ratio": found.pop("quotient"),
        **found,
    }


@click.command()
@only_option
@click.option("--images", type=int, help="How many; default: 1024 and 256.")
@pairs_option
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@json_option
def main(only: str | None, images: int | None, count: int, precision: str, as_json: bool) -> None:
    """Evaluator ÷ bare forward pass."""
    rows = [measure(name, folder, images, count, precision) for name, _, folder in chosen(SUBJECTS, only)]
    show("engine", rows, as_json=as_json)


if __name__ == "__main__":
    main()

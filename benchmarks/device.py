"""Evaluations per second of ViT-B/32 on this machine's best device, in fp32, bf16 and compiled, and the ceiling.

``python -m benchmarks.device --json`` on a GPU; on a CPU give ``--images 64``. The ceiling is a matrix product of
bf16 squares measured here. ``projected_hours`` is the time of the published search: 8,034 evaluations.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import json_option, seconds, show, trials, vit_b32
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.device import batch_for
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.clip import ClipC8
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.strategies.uniform import Uniform

PUBLISHED = 8034
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16 compiled": {"precision": "bf16", "compile": True},
}


def ceiling(device: torch.device) -> float:
    """Floating-point operations per second of a bf16 matrix product, the median of 7."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    return 2 * side**3 / statistics.median(seconds(multiply) for _ in range(7))


@click.command()
@click.option("--images", type=int, default=26_000, show_default=True)
@click.option("--only", help="Part of a variant's name.")
@click.option("--count", type=int, default=7, show_default=True, help="Evaluations of each variant.")
@json_option
def main(images: int, only: str | None, count: int, as_json: bool) -> None:
    """Evaluations per second, share of the ceiling, projected time of the published search."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pool, task = vit_b32(Path(folder), images)
        for name, settings in VARIANTS.items():
            if only is not None and only not in name:
                continue
            made = plan(pool, Uniform(), partitioner=ClipC8(), task=task, objective=NegativeLogLikelihood(), **settings)
            assert made.live is not None  # noqa: S101 (for the type checker)
            assert made.numerics is not None  # noqa: S101
            device = made.live.weights.device
            with FlopCounterMode(display=False) as counter:
                made.live.module(batch_for(task, task.held_out.inputs[:1], device, made.live.dtype))
            with made.numerics.applied():
                evaluator = Evaluator.over(
                    made.live, task, made.objective, made.numerics, Ledger(Journal(None)), cache_memory=0
                )
                trial = trials(evaluator)
                trial()
                took = statistics.median(seconds(trial) for _ in range(count))
                top = ceiling(device)
            speed = counter.get_total_flops() * images / took
            rows.append(
                {
                    "variant": name,
                    "device": str(device),
                    "images": images,
                    "seconds": took,
                    "evaluations_per_second": 1 / took,
                    "operations_per_second": speed,
                    "bf16_ceiling": top,
                    "share_of_ceiling": speed / top,
                    "projected_hours": PUBLISHED * took / 3600,
                }
            )
    show("device", rows, as_json=as_json)


if __name__ == "__main__":
    main()

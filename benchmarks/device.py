"""Microseconds an image of ViT-B/32 on this machine's best device, by each way of making passes, and the ceiling.

``python -m benchmarks.device --json`` on a GPU; on a CPU give ``--images 64``. The ceiling is a matrix product of
bf16 squares measured here. Last comes the published search, projected: nobody ran it here. It made 8,034 evaluations
of 26,000 images (33 searches of 240 points, and 114 others). Its points were not logged; on another pool, where the
same program was traced, 174 of its 2,177 evaluations were of points that it had not tried before. ``--finetune`` adds
steps of fine-tuning and a pool of 24, as :mod:`benchmarks.finetuning` measures them.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import finetuning
from benchmarks.common import json_option, seconds, show, trials, vit_b32
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.device import batch_for
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.clip import ClipC8
from merging.plugins.task import Task
from merging.running.plan import Plan, plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform

SEARCHES, POINTS, OTHERS = 33, 240, 114
IMAGES = 26_000
TRACED, DISTINCT = 2177, 174
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "patches": True, "compile": False},
    "bf16 convolution": {"precision": "bf16", "patches": False, "compile": False},
    "bf16 patches": {"precision": "bf16", "patches": True, "compile": False},
    "bf16 patches compiled": {"precision": "bf16", "patches": True, "compile": True},
}


def ceiling(device: torch.device, side: int | None = None) -> float:
    """Floating-point operations per second of a bf16 matrix product, the median of 7."""
    side = side or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    return 2 * side**3 / statistics.median(seconds(multiply) for _ in range(7))


def planned(pool: ModelPool, task: Task, *, patches: bool, **settings: Any) -> Plan:
    """A plan whose passes are made in a certain way, whatever the rule of this machine."""
    given: dict[str, Any] = {"partitioner": ClipC8(), "task": task, "objective": NegativeLogLikelihood(), **settings}
    made = plan(pool, Uniform(), **given)
    assert made.numerics is not None  # noqa: S101 (for the type checker)
    numerics = replace(made.numerics, patches=patches)
    if made.numerics.patches and not patches:  # the module has products already
        made = plan(pool, Uniform(), measured=numerics, **given)
    return replace(made, numerics=numerics)


def measure(name: str, made: Plan, count: int, top: float | None = None) -> dict[str, Any]:
    """One variant's row."""
    assert made.live is not None  # noqa: S101 (for the type checker)
    assert made.numerics is not None  # noqa: S101
    assert made.task is not None  # noqa: S101
    device, images = made.live.weights.device, len(made.task.held_out)
    with FlopCounterMode(display=False) as counter:
        made.live.module(batch_for(made.task, made.task.held_out.inputs[:1], device, made.live.dtype))
    with made.numerics.applied():
        ledger = Ledger(Journal(None))
        trial = trials(Evaluator.over(made.live, made.task, made.objective, made.numerics, ledger, cache_memory=0))
        first = seconds(trial)
        took = statistics.median(seconds(trial) for _ in range(count))
        top = top or ceiling(device)
    speed = counter.get_total_flops() * images / took
    return {
        "variant": name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "passes": made.numerics.words,
        "images": images,
        "seconds": took,
        "first_seconds": first,
        "microseconds_an_image": 1e6 * took / images,
        "operations_per_second": speed,
        "bf16_ceiling": top,
        "share_of_ceiling": speed / top,
    }


def projection(row: dict[str, Any]) -> dict[str, Any]:
    """The published search at a measured speed: a projection, with the parts that it is made of."""
    published = SEARCHES * POINTS + OTHERS
    distinct = round(published * DISTINCT / TRACED)
    one = IMAGES * row["microseconds_an_image"] / 1e6
    return {
        "projection": "the published search (not run)",
        "variant": row["variant"],
        "evaluations": published,
        "distinct_share": DISTINCT / TRACED,
        "distinct_of": f"{DISTINCT} of {TRACED} on another, traced pool",
        "distinct_evaluations": distinct,
        "images": IMAGES,
        "microseconds_an_image": row["microseconds_an_image"],
        "seconds_an_evaluation": one,
        "hours_of_all": published * one / 3600,
        "minutes_of_distinct": distinct * one / 60,
    }


@click.command()
@click.option("--images", type=int, default=IMAGES, show_default=True)
@click.option("--model", default="open_clip:ViT-B-32-quickgelu", show_default=True)
@click.option("--only", help="Part of a variant's name.")
@click.option("--count", type=int, default=7, show_default=True, help="Evaluations of each variant.")
@click.option("--finetune", "models", is_flag=False, flag_value=24, default=0, help="And a pool of N models (24).")
@json_option
def main(images: int, model: str, only: str | None, count: int, models: int, as_json: bool) -> None:
    """Microseconds an image, share of the ceiling, and the published search projected from them."""
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        pool, task = vit_b32(Path(folder), images, spec=model)
        for name, settings in VARIANTS.items():
            if only is None or only in name:
                top = rows[0]["bf16_ceiling"] if rows else None
                rows.append(measure(name, planned(pool, task, **settings), count, top))
    rows += [projection(row) for row in rows]
    if models:
        rows += [*finetuning.rows(*finetuning.made()), finetuning.pool(finetuning.made, models)]
    show("device", rows, as_json=as_json)


if __name__ == "__main__":
    main()

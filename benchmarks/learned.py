"""Learned and affine soups against the evaluations that their cost is counted in.

``python -m benchmarks.learned --json``; on a GPU add ``--device cuda``, which needs no data. ``ratio`` is the wall time
of learning ÷ (its forward-equivalents × the time of one evaluation), all in one process. Bar: ≤ 1.4. On a CPU the
pools are those of ``benchmarks.search``; elsewhere, and with ``--only ViT``, copies of ViT-B/32 with random weights and
noise, made in memory, and random images.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import chosen, json_option, only_option, seconds, show, vit_b32
from benchmarks.search import POOLS, Made
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.scorer import LiveScorer
from merging.forward.rows import resident
from merging.partitioners.clip import ClipC8
from merging.plugins.task import HELD_OUT
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.session import Session
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.strategies.learned import Learned

SOUPS = ("learned", "affine")


def vit(folder: Path, *, models: int, images: int) -> Made:
    """Copies of one ViT-B/32, each with 1 % of noise on every tensor: parts of one stretch of draws, which is quick."""
    one, task = vit_b32(folder, images, models=1)
    state = {name: one.read(one.ingredients[0], name) for name in one.tensors}
    longest = max(tensor.numel() for tensor in state.values())
    noise = 0.01 * torch.randn(longest + 1000 * models, generator=torch.Generator().manual_seed(0))

    def noisy(number: int) -> Checkpoint:
        part = noise[1000 * number :]
        made = {
            name: torch.addcmul(tensor, part[: tensor.numel()].view(tensor.shape), tensor.std())
            if tensor.is_floating_point() and tensor.numel() > 1
            else tensor
            for name, tensor in state.items()
        }
        return Checkpoint.of(made, f"model_{number}")

    pool = ModelPool([noisy(number) for number in range(models)])
    return pool, task, ClipC8(), Learned()


def _session(made: Made, strategy: Learned, device: str, precision: str) -> Session:
    pool, task, _, _ = made
    planned = plan(pool, strategy, task=task, tests=False, cache_memory=0, device=device, precision=precision)
    assert planned.numerics is not None  # noqa: S101 (for the type checker)
    torch.set_num_threads(planned.numerics.threads)
    return Session.open(planned)


def _parts(evaluator: Evaluator, problem: MergeProblem, strategy: Learned) -> dict[str, Any]:
    """Median seconds of one step of a block, and of what it mixes and projects, which reads ``gigabytes`` each time."""
    scorer, count = evaluator.scorer, min(strategy.block or 18, len(problem.pool))
    assert isinstance(scorer, LiveScorer)  # noqa: S101 (for the type checker)
    live, recipes = scorer.live, [problem.single(number) for number in range(count)]
    device = live.weights.device
    batch = next(iter(problem.slopes.batches(HELD_OUT, problem.generator, strategy._size(problem))))
    table = torch.full((count, len(problem.partition)), 1 / count, dtype=torch.float64)

    def median(call: Callable[[], object]) -> float:
        def waited() -> None:
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        waited()
        return statistics.median(seconds(waited) for _ in range(7))

    blend = problem.slopes.blend(recipes)
    shares, scale = table.to(blend.home), torch.ones((), dtype=torch.float64, device=blend.home)
    step = median(partial(blend.slopes, shares, batch, scale))
    rows, brief = resident(live, recipes), table.float().to(device)
    slope = torch.ones_like(live.weights)
    size = (2 if rows.dtype == torch.bfloat16 else 4) * count * len(live.weights)
    return {
        "rows": count,
        "gigabytes": size / 1e9,
        "step_of": len(batch[1]),
        "step": step,
        "mix": median(lambda: rows.mix(brief)),
        "project": median(lambda: rows.project(slope)),
    }


def measure(
    made: Made, profile: str, *, device: str, precision: str, steps: int | None, rounds: int, repeats: int
) -> dict[str, Any]:
    """One row: soups with evaluations before and after each.

    ``startup``: what a first soup of one step takes longer than a second one: models brought to the device, libraries
    loaded. ``ratio`` is without it, ``whole`` with it.
    """
    own = Learned(profile=profile) if steps is None else Learned(profile=profile, steps=steps)
    session = _session(made, own, device, precision)
    evaluator, problem = session.evaluator, session.problem()
    assert evaluator is not None  # noqa: S101
    first, second = (seconds(partial(Learned(profile=profile, steps=1).mix, problem)) for _ in range(2))
    recipes = [problem.single(number) for number in range(len(problem.pool))]

    def evaluations() -> list[float]:
        evaluator.scorer.measure(recipes[0], HELD_OUT)
        order = (recipes[number % len(recipes)] for number in range(repeats))
        return [seconds(lambda: evaluator.scorer.measure(next(order), HELD_OUT)) for _ in range(repeats)]

    found = list[tuple[float, float, float]]()
    before = evaluations()
    for _ in range(rounds):
        meter = evaluator.ledger.begin()
        wall = seconds(lambda: own.mix(session.problem()))
        passes, after = meter.forward_equivalents, evaluations()
        found.append((wall, passes, statistics.median(before + after)))
        before = after
    ratios = sorted(wall / (passes * each) for wall, passes, each in found)
    wall, passes, each = (statistics.median(column) for column in zip(*found, strict=True))
    return {
        "soup": profile,
        "samples": len(evaluator.task.held_out),
        "models": len(problem.pool),
        "components": len(problem.partition),
        "numerics": session.plan.numerics.words if session.plan.numerics else "",
        "steps": steps,
        "startup": first - second,
        "evaluation": each,
        "passes": passes,
        "seconds": wall,
        "ratio": statistics.median(ratios),
        "range": [ratios[0], ratios[-1]],
        "whole": (wall + first - second) / (passes * each),
        **_parts(evaluator, problem, own),
    }


@click.command()
@only_option
@click.option("--repeats", type=int, default=5, show_default=True, help="Evaluations before and after each soup.")
@click.option("--rounds", type=int, default=1, show_default=True, help="Soups of each kind.")
@click.option("--steps", type=int, help="Steps of each soup.  [default: the strategy's own]")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--models", type=int, default=72, show_default=True, help="Copies of ViT-B/32.")
@click.option("--images", type=int, default=13_000, show_default=True, help="Images for these.")
@json_option
def main(only: str | None, device: str, models: int, images: int, as_json: bool, **how: Any) -> None:
    """Seconds of a soup ÷ seconds of as many passes."""
    rows, own = [], {"ViT-B/32": partial(vit, models=models, images=images)}
    subjects: dict[str, Callable[[Path], Made]] = {**(POOLS if only or device == "cpu" else {})}
    subjects |= own if only or device != "cpu" else {}
    for name, make, folder in chosen(subjects, only):
        made = make(folder)
        for profile in SOUPS:
            gc.collect()  # the last soup's models leave the device
            torch.cuda.empty_cache()
            rows.append({"task": name, **measure(made, profile, device=device, **how)})
            click.echo(json.dumps(rows[-1]), err=True)
    show("learned", rows, as_json=as_json)


if __name__ == "__main__":
    main()

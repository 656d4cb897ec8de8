"""A whole manifold mix with every optimizer on the digits task: evaluations, time and result side by side.

``python -m benchmarks.optimizers`` prints the table; ``--output docs/optimizers.json`` keeps the figures, from which
``--render docs/optimizers.json`` prints the Markdown table of docs/optimizers.md.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import click

from merging.values.report import number

BACKENDS: dict[str, dict[str, Any]] = {
    "nevergrad-cobyla": {},
    "nevergrad-reference": {},
    **{f"nevergrad {method}": {"method": method} for method in ("NGOpt", "OnePlusOne", "CMA", "TwoPointsDE", "PSO")},
    "scipy-cobyla": {},
    "scipy-cobyqa": {},
    **{f"optuna {sampler}": {"sampler": sampler} for sampler in ("tpe", "cmaes", "gp")},
    "coordinate": {},
    "random": {},
}


def measure(label: str, options: dict[str, Any], budget: int | None, seed: int) -> dict[str, Any]:
    """One run; its evaluations come from the report, its time from the clock."""
    import merging
    from merging.plugins.discovery import load_all
    from merging.plugins.options import build
    from merging.plugins.registry import optimizers

    load_all(())
    task = merging.load_task("digits")
    assert task.pool is not None  # noqa: S101 (for the type checker)
    began = time.perf_counter()
    result = merging.merge(
        task.pool(),
        merging.ManifoldMix(),
        partitioner=merging.ClipC8(),
        optimizer=build(optimizers[label.split()[0]], options),
        task=task,
        budget=budget,
        seed=seed,
    )
    row = result.report.merged
    assert row is not None  # noqa: S101 (for the type checker)
    return {
        "optimizer": label,
        "evaluations": row.evaluations,
        "wall_seconds": time.perf_counter() - began,
        "held_out": row.held_out,
        "test": row.tests["test"],
        "shifted": row.shifted,
        "ingredients": len(row.ingredients),
    }


def render(data: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "| optimizer | distinct evaluations | seconds | models kept | held-out | test | shifted |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        scores = " | ".join(number(row[key], percent=True) for key in ("held_out", "test", "shifted"))
        lines.append(
            f"| {row['optimizer']} | {row['evaluations']} | {row['wall_seconds']:.0f} "
            f"| {row['ingredients']} | {scores} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--only", multiple=True, help="Part of a backend's label; repeatable.")
@click.option("--budget", type=int, help="Evaluations per search; default: the strategy's 250.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
@click.option("--render", "rendered", type=click.Path(path_type=Path), help="Only print the table of such a file.")
def main(only: tuple[str, ...], budget: int | None, seed: int, output: Path | None, rendered: Path | None) -> None:
    """Runs a manifold mix on the digits task once with every optimizer."""
    if rendered is not None:
        click.echo(render(json.loads(rendered.read_text("utf-8"))))
        return
    chosen = {label: options for label, options in BACKENDS.items() if not only or any(part in label for part in only)}
    data: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "seed": seed, "rows": []}
    for label, options in chosen.items():
        data["rows"].append(measure(label, options, budget, seed))
        click.echo(json.dumps(data["rows"][-1]), err=True)
        if output is not None:
            output.write_text(json.dumps(data, indent=1) + "\n")
    click.echo(render(data))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

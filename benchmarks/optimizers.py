"""A whole manifold mix with every optimizer on the digits task: evaluations, time and result side by side.

``python -m benchmarks.optimizers`` prints the table; ``--output docs/optimizers.json`` keeps the figures, from which
``--render docs/optimizers.json`` prints the Markdown table of docs/optimizers.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from benchmarks.digits_table import SCORES, only_option, output_option, render_option, run, seed_option, tabulate
from merging.values.report import number

BACKENDS: dict[str, dict[str, Any]] = {
    "nevergrad-cobyla": {},
    "nevergrad-reference": {},
    **{f"nevergrad {method}": {"method": method} for method in ("NGOpt", "OnePlusOne", "CMA", "TwoPointsDE", "PSO")},
    "scipy-cobyla": {},
    "scipy-cobyqa": {},
    **{f"optuna {sampler}": {"sampler": sampler} for sampler in ("tpe", "cmaes", "gp")},
    "coordinate": {},
    "nested": {},
    "random": {},
}


def measure(label: str, budget: int | None, seed: int) -> dict[str, Any]:
    """One run; its evaluations come from the report, its time from the clock."""
    import merging
    from merging.plugins.options import build
    from merging.plugins.registry import optimizers

    optimizer = build(optimizers[label.split()[0]], BACKENDS[label])
    how = {"partitioner": merging.ClipC8(), "optimizer": optimizer, "budget": budget, "seed": seed}
    report, row = run(merging.ManifoldMix(), **how)
    assert report.merged is not None  # noqa: S101 (for the type checker)
    return {
        "optimizer": label,
        "evaluations": row["evaluations"],
        "wall_seconds": row["seconds"],
        **{key: row[key] for key in SCORES},
        "ingredients": len(report.merged.ingredients),
    }


def render(data: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "| optimizer | distinct evaluations | seconds | models kept | held-out | test | shifted |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        scores = " | ".join(number(row[key], percent=True) for key in SCORES)
        lines.append(
            f"| {row['optimizer']} | {row['evaluations']} | {row['wall_seconds']:.0f} "
            f"| {row['ingredients']} | {scores} |"
        )
    return "\n".join(lines)


@click.command()
@only_option
@click.option("--budget", type=int, help="Evaluations per search; default: the strategy's 250.")
@seed_option
@output_option
@render_option
def main(only: tuple[str, ...], budget: int | None, seed: int, output: Path | None, rendered: Path | None) -> None:
    """Runs a manifold mix on the digits task once with every optimizer."""
    tabulate(
        BACKENDS,
        lambda label: measure(label, budget, seed),
        render,
        only=only,
        seed=seed,
        output=output,
        rendered=rendered,
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

"""Every strategy side by side on the digits task: scores, evaluations, seconds, inference cost.

``python -m benchmarks.methods`` prints the table; ``--output docs/methods.json`` keeps the figures, from which
``--render docs/methods.json`` prints the Markdown table of docs/methods.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from benchmarks.digits_table import SCORES, only_option, output_option, render_option, run, seed_option, tabulate
from merging.values.report import number

METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "best": ("best", "clip-c8", {}),
    "uniform": ("uniform", "clip-c8", {}),
    "greedy": ("greedy", "clip-c8", {}),
    "greedy, best of 3 random orders": ("greedy", "clip-c8", {"order": "random"}),
    "manifoldmix, clip-c8": ("manifoldmix", "clip-c8", {}),
    "manifoldmix, clip-c26": ("manifoldmix", "clip-c26", {}),
    "manifoldmix, profile reference": ("manifoldmix", "clip-c8", {"profile": "reference"}),
    "learned, clip-c8": ("learned", "clip-c8", {}),
    "learned, clip-c26": ("learned", "clip-c26", {}),
    "learned, layer": ("learned", "layer", {}),
    "learned affine, clip-c26": ("learned", "clip-c26", {"coefficients": "affine"}),
    "affine, layer": ("affine", "layer", {}),
    "wise-ft (α = 0.5) on uniform": ("wise-ft", "clip-c8", {}),
    "wise-ft (α = 0.8) on greedy": ("wise-ft", "clip-c8", {"alpha": 0.8, "inner": "greedy"}),
    "wise-ft, sweep on learned": ("wise-ft", "clip-c26", {"alpha": None, "inner": "learned"}),
    "lines on uniform": ("lines", "clip-c8", {}),
    "lines on greedy": ("lines", "clip-c8", {"inner": "greedy"}),
    "lines on learned affine, clip-c26": ("lines", "clip-c26", {"inner": "learned", "inner.coefficients": "affine"}),
    "monosoup on uniform": ("monosoup", "clip-c8", {}),
    "monosoup on greedy": ("monosoup", "clip-c8", {"inner": "greedy"}),
    "shrink on uniform": ("shrink", "clip-c8", {}),
    "shrink on greedy": ("shrink", "clip-c8", {"inner": "greedy"}),
    "fisher": ("fisher", "clip-c8", {}),
    "fisher, 20 draws": ("fisher", "clip-c8", {"draws": 20}),
    "swa (not one run's checkpoints)": ("swa", "clip-c8", {"last": 7}),
    "weighted (best twice)": ("weighted", "clip-c8", {"weights": ("*=1", "model_01=2")}),
    "task-arithmetic (λ = 0.05)": ("task-arithmetic", "clip-c8", {"scale": 0.05}),
    "model-stock": ("model-stock", "clip-c8", {}),
    "slerp (Karcher mean)": ("slerp", "clip-c8", {}),
    "ties": ("ties", "clip-c8", {}),
    "dare": ("dare", "clip-c8", {}),
    "dare-linear (λ = 0.05)": ("dare-linear", "clip-c8", {"scale": 0.05}),
    "dare-ties": ("dare-ties", "clip-c8", {}),
    "breadcrumbs": ("breadcrumbs", "clip-c8", {}),
    "breadcrumbs-ties": ("breadcrumbs-ties", "clip-c8", {}),
    "della": ("della", "clip-c8", {}),
    "della-linear": ("della-linear", "clip-c8", {}),
    "sce": ("sce", "clip-c8", {}),
    "karcher": ("karcher", "clip-c8", {}),
    "multislerp": ("multislerp", "clip-c8", {}),
    "nuslerp": ("nuslerp", "clip-c8", {}),
    "ensemble": ("ensemble", "clip-c8", {}),
    "greedy-ensemble": ("greedy-ensemble", "clip-c8", {}),
}
"""Label → strategy, partitioner, options."""


def measure(label: str, seed: int) -> dict[str, Any]:
    """One run without baselines: what the method costs alone."""
    from merging.cli.asking.resolve import inner
    from merging.plugins.registry import partitioners

    name, partitioner, options = METHODS[label]
    report, row = run(inner(name, options), partitioner=partitioners[partitioner](), baselines=False, seed=seed)
    merged = report.merged
    assert merged is not None  # noqa: S101 (for the type checker)
    return {
        "method": label,
        "strategy": name,
        **{key: row[key] for key in SCORES},
        "models": len(report.ingredients),
        "inference_cost": merged.inference_cost,
        "evaluations": row["evaluations"],
        "forward_equivalents": merged.forward_equivalents,
        "seconds": row["seconds"],
    }


def render(data: dict[str, Any]) -> str:
    """The Markdown table, the best single model of each column in bold."""
    lines = [
        "| method | held-out | test | shifted | models in it | passes a sample | evaluations | forward-equivalents "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    single = [row for row in data["rows"] if row["inference_cost"] == 1]
    best = {key: max(row[key] for row in single) for key in SCORES}
    for row in data["rows"]:
        scores = [number(row[key], percent=True) for key in best]
        marked = [
            f"**{text}**" if row in single and row[key] == best[key] else text
            for text, key in zip(scores, best, strict=True)
        ]
        lines.append(
            f"| {row['method']} | {' | '.join(marked)} | {row['models']} | {row['inference_cost']} "
            f"| {row['evaluations']} | {row['forward_equivalents']:.0f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


@click.command()
@only_option
@seed_option
@output_option
@render_option
def main(only: tuple[str, ...], seed: int, output: Path | None, rendered: Path | None) -> None:
    """Runs every strategy once on the digits task."""
    tabulate(
        METHODS,
        lambda label: measure(label, seed),
        render,
        only=only,
        seed=seed,
        output=output,
        rendered=rendered,
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

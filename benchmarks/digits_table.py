"""A table of runs on the digits task, a row a label: measured one by one, kept as JSON, and rendered from there."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from merging.values.report import Report

Row: TypeAlias = dict[str, Any]
Data: TypeAlias = dict[str, Any]
SCORES = ("held_out", "test", "shifted")
"""Columns of accuracies."""
only_option = click.option("--only", multiple=True, help="Part of a row's label; repeatable.")
seed_option = click.option("--seed", type=int, default=0, show_default=True)
output_option = click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
render_option = click.option(
    "--render", "rendered", type=click.Path(path_type=Path), help="Only print the table of such a file."
)


def run(strategy: Any, **settings: Any) -> tuple[Report, Row]:
    """One run on the digits: its report, and its scores with what they cost, by the report and the clock."""
    import merging

    task = merging.load_task("digits")
    assert task.pool is not None  # noqa: S101 (for the type checker)
    began = time.perf_counter()
    report = merging.merge(task.pool(), strategy, task=task, **settings).report
    merged = report.merged
    assert merged is not None  # noqa: S101 (for the type checker)
    scores = {"held_out": merged.held_out, "test": merged.tests["test"], "shifted": merged.shifted}
    return report, {**scores, "evaluations": merged.evaluations, "seconds": time.perf_counter() - began}


def tabulate(
    labels: Iterable[str],
    measure: Callable[[str], Row],
    render: Callable[[Data], str],
    *,
    only: tuple[str, ...],
    seed: int,
    output: Path | None,
    rendered: Path | None,
) -> None:
    """Prints the table: of the rows that are measured now and kept after each, or of a file's.

    Args:
        labels: of all rows.
        measure: makes one.
        render: makes the table.
        only: parts of the labels that are wanted; none: all.
        seed: that the rows are measured with.
        output: file for the figures.
        rendered: file that has them already.
    """
    if rendered is not None:
        click.echo(render(json.loads(rendered.read_text("utf-8"))))
        return
    from merging.plugins.discovery import load_all

    load_all(())
    data: Data = {"cores": os.cpu_count(), "python": platform.python_version(), "seed": seed, "rows": []}
    for label in labels:
        if only and not any(part in label for part in only):
            continue
        data["rows"].append(measure(label))
        click.echo(json.dumps(data["rows"][-1]), err=True)
        if output is not None:
            output.write_text(json.dumps(data, indent=1) + "\n")
    click.echo(render(data))

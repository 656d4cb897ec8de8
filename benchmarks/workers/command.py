"""What is asked of ``python -m benchmarks.workers``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import show
from benchmarks.workers import published
from benchmarks.workers.program import Costs, Phase
from benchmarks.workers.recorded import recorded
from benchmarks.workers.simulation import rows

H100 = 0.60
"""Seconds of one evaluation of the published search on that card (docs/performance.md)."""
BATCH = 512


def programs(seconds: float) -> dict[str, list[Phase]]:
    """The published runs, and the search as this project makes it."""
    search = published.manifoldmix(seconds)
    new = published.manifoldmix(seconds, points=published.NEW)
    return {
        "greedy": published.greedy(seconds),
        "manifoldmix C8, as published": search,
        "manifoldmix C8, with ranking and test sets": [
            published.ranking(seconds),
            *search[1:],
            published.tests(seconds, published.MERGES),
        ],
        "manifoldmix C8, new points alone": [published.ranking(seconds), *new[1:]],
    }


@click.command()
@click.option("--simulate", is_flag=True, help="Makespan and bound of published runs, or of one of ours.")
@click.option("--run", "folder", type=click.Path(path_type=Path, exists=True), help="A finished run of ours, instead.")
@click.option("--seconds", default=H100, show_default=True, help="Of one evaluation of a published run.")
@click.option("--overhead", default=0.003, show_default=True, help="Seconds a request.")
@click.option("--loading", default=0.0, show_default=True, help="Seconds for the models of a request.")
@click.option("--batches", type=int, help="Of one evaluation, where it may be cut.  [default: published 51, ours 1]")
@click.option("--json", "where", is_flag=False, flag_value="-", help="As JSON, to a file if one is given.")
def main(
    simulate: bool,
    folder: Path | None,
    seconds: float,
    overhead: float,
    loading: float,
    batches: int | None,
    where: str | None,
) -> None:
    """What many workers can gain."""
    if not simulate:
        raise click.UsageError("say what: --simulate")
    found = list[dict[str, Any]]()
    if folder is not None:
        found += rows(folder.name, recorded(folder), Costs(overhead, loading, batches or 1))
    else:
        costs = Costs(overhead, loading, batches or -(-published.IMAGES // BATCH))
        for name, phases in programs(seconds).items():
            found += rows(name, phases, costs)
    if where is None or where == "-":
        show("workers", found, as_json=where == "-")
    else:
        Path(where).write_text(json.dumps({"benchmark": "workers", "rows": found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""What is asked of ``python -m benchmarks.workers``."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.common import chosen, only_option, pairs_option, show
from benchmarks.workers import faults, nodes, published, speed
from benchmarks.workers.overhead import overhead
from benchmarks.workers.program import Costs, Phase
from benchmarks.workers.recorded import recorded
from benchmarks.workers.simulation import rows

H100 = 0.60
"""Seconds of one evaluation of the published search on that card (docs/performance.md)."""
BATCH = 512
REQUESTS: dict[str, int | str] = {"local": 1, "ray": "1@ray"}
"""Workers that the overhead of a request is measured with."""


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


def simulated(folder: Path | None, seconds: float, costs: Costs, batches: int | None) -> list[dict[str, Any]]:
    """Rows of the published runs, or of one of ours."""
    if folder is not None:
        return list(rows(folder.name, recorded(folder), replace(costs, batches=batches or 1)))
    cut = replace(costs, batches=batches or -(-published.IMAGES // BATCH))
    return [row for name, phases in programs(seconds).items() for row in rows(name, phases, cut)]


def measured(pool: Path | None, pairs: int, only: str | None) -> list[dict[str, Any]]:
    """Rows of overhead and speed on this machine."""
    found = list[dict[str, Any]]()
    for name, asked, place in chosen(REQUESTS, only):
        found.append({"requests": name, **overhead(asked, place / "pool")})
    with tempfile.TemporaryDirectory() as trained:
        made = None
        for name, strategy, place in chosen(speed.STRATEGIES, only):
            made = made or speed.pool(pool or Path(trained))
            found.append(speed.compared(name, made, strategy, place, pairs))
    return found


def killed(times: int, on_ray: int, seed: int) -> list[dict[str, Any]]:
    """Rows of disturbed runs."""
    found = dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        os.environ["MERGING_CACHE"] = f"{place}/cache"
        if times:
            found |= faults.campaign(Path(place), times, seed)
        if on_ray:
            found |= nodes.on_nodes(Path(place), on_ray, seed)
    return [{"disturbed": name, **row} for name, row in found.items()]


@click.command()
@click.option("--simulate", is_flag=True, help="Makespan and bound of published runs, or of one of ours.")
@click.option("--speed", "speedy", is_flag=True, help="Runs on PACS with one worker and with two, and of a request.")
@click.option("--faults", "faulty", is_flag=True, help="Workers, drivers and nodes killed at random moments.")
@click.option("--run", "folder", type=click.Path(path_type=Path, exists=True), help="Simulate this finished run.")
@click.option("--seconds", default=H100, show_default=True, help="Of one evaluation of a published run.")
@click.option("--overhead", "request", default=0.003, show_default=True, help="Seconds a request, simulated.")
@click.option("--loading", default=0.0, show_default=True, help="Seconds for the models of a request, simulated.")
@click.option("--batches", type=int, help="Of one evaluation, where it may be cut.  [default: published 51, ours 1]")
@click.option("--pool", type=click.Path(path_type=Path), help="Train the models on PACS there, or find them there.")
@only_option
@pairs_option
@click.option("--times", default=4, show_default=True, help="Each kind of fault with each strategy.")
@click.option("--on-ray", default=3, show_default=True, help="Nodes removed under each strategy.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--json", "where", is_flag=False, flag_value="-", help="As JSON, to a file if one is given.")
def main(**given: Any) -> None:
    """What many workers can gain, what they do gain, and what happens when they are killed.

    Without any of the first three: simulation and speed.
    """
    nothing = not (given["simulate"] or given["speedy"] or given["faulty"])
    found = list[dict[str, Any]]()
    if given["simulate"] or nothing:
        costs = Costs(given["request"], given["loading"])
        found += simulated(given["folder"], given["seconds"], costs, given["batches"])
    if given["speedy"] or nothing:
        found += measured(given["pool"], given["count"], given["only"])
    if given["faulty"]:
        found += killed(given["times"], given["on_ray"], given["seed"])
    where = given["where"]
    if where is None or where == "-":
        show("workers", found, as_json=where == "-")
    else:
        Path(where).write_text(json.dumps({"benchmark": "workers", "rows": found}, indent=1) + "\n", "utf-8")
    if any(row.get("lost") for row in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

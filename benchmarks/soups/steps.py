"""A step of the protocol: one pool is trained, compared, and kept in one file of JSON.

``python -m benchmarks.soups step NAME --output DIR``. Each part goes on where it was cut off: models that are trained
stay, methods that are finished stay, a record that is written stays.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

import merging
from benchmarks.common import data_folder
from benchmarks.soups.design import (
    FAMILIES,
    OPTIONS,
    POOLS,
    RECORDS,
    Family,
    Pool,
    planned,
    pool_named,
    seeds,
)
from benchmarks.soups.record import Record, Scored
from merging.benchmarking.runs import MethodRun, read_run
from merging.tasks.meant import task_of
from merging.values.outcome import Outcome

TIMES = "seconds.json"
KEPT = 5.0
"""Seconds after which those of a running command are kept again."""


def make(pool: Pool, work: Path, kept: Path, jobs: int | None, device: str) -> Path:
    """Trains and compares a pool in ``work``, and writes its record into ``kept``."""
    family = FAMILIES[pool.family]
    protocol = family.protocol_hash()
    file = kept / f"{pool.name}.json"
    if file.is_file():
        _same_protocol(file, family)
        click.echo(f"{pool.name}: there already, {file}")
        return file
    folder = work / pool.name
    folder.mkdir(parents=True, exist_ok=True)
    task = folder / "task.toml"
    task.write_text(family.task(pool, data_folder().absolute()), "utf-8")
    (folder / "sweep.toml").write_text(family.sweep, "utf-8")
    _timed(folder, "training", _training(family, pool, folder, jobs, device))
    for partitioner in family.compared:
        _timed(folder, f"comparison by {partitioner}", _comparison(family, folder, partitioner, device))
    record = _record(pool, folder, protocol)
    click.echo(f"{pool.name}: {len(record.models)} models, {len(record.methods)} methods")
    return record.write(kept)


def _same_protocol(file: Path, family: Family) -> None:
    """Checks that a record is one, and of the protocol as it stands: what was measured is not written over.

    Raises:
        UsageError: it is not.
    """
    try:
        made = Record.read(file).protocol
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise click.UsageError(f"{file} is no record; remove it, and the step makes it again") from error
    protocol = family.protocol_hash()
    if made != protocol:
        raise click.UsageError(
            f"{file} was made under protocol {made[:12]}, and docs/results/{family.protocol.name} is "
            f"{protocol[:12]} now; "
            "remove it, and the step makes it again"
        )


def _training(family: Family, pool: Pool, folder: Path, jobs: int | None, device: str) -> list[str]:
    words = ["finetune", "--task", str(folder / "task.toml"), "--base", str(data_folder() / family.base)]
    words += ["--models", str(family.models), "--sweep", str(folder / "sweep.toml"), "--seed", str(pool.seed)]
    words += ["--output", str(folder / "pool"), "--device", device, "--trust-code"]
    return [*words, "--jobs", str(jobs)] if jobs else words


def _comparison(family: Family, folder: Path, partitioner: str, device: str) -> list[str]:
    methods = family.compared[partitioner]
    named = ",".join(name if name == strategy else f"{name}={strategy}" for name, strategy in methods.items())
    words = ["benchmark", "--task", str(folder / "task.toml"), "--models", f"{folder}/pool/model_*.safetensors"]
    words += ["--base", str(folder / "pool" / "base.safetensors"), "--strategies", named, "--no-singles"]
    words += ["--partitioner", partitioner, "--budget", str(family.budget), "--device", device, "--trust-code"]
    for option in OPTIONS:
        words += ["-o", option] if option.partition(".")[0] in methods else []
    return [*words, "--output", str(folder / partitioner)]


def _timed(folder: Path, what: str, words: list[str]) -> None:
    """Runs a command of ``merge``, and adds the seconds that it took to those of earlier attempts.

    They are kept while it runs, so that those of an attempt that is killed count as well.

    Raises:
        SystemExit: it failed, with its exit code.
    """
    file = folder / TIMES
    taken: dict[str, float] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    earlier, began = taken.get(what, 0.0), time.perf_counter()
    code: int | None = None
    with subprocess.Popen([sys.executable, "-m", "merging", *words]) as running:  # noqa: S603 (our own command)
        while code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = running.wait(KEPT)
            taken[what] = round(earlier + time.perf_counter() - began, 1)
            aside = file.with_suffix(".tmp")
            aside.write_text(json.dumps(taken), "utf-8")
            aside.replace(file)
    if code:
        raise SystemExit(code)


def _record(pool: Pool, folder: Path, protocol: str) -> Record:
    """What the folders of a finished step say, as one value."""
    task, compared = task_of(folder / "task.toml", trust_code=True), FAMILIES[pool.family].compared
    models = sorted((folder / "pool").glob("model_*.safetensors"))
    ranking = merging.evaluate_all([str(path) for path in models], task)
    alone = {Path(ranked.name).stem: ranked.outcomes for ranked in ranking.models}
    runs = [read_run(path) for name in compared for path in sorted((folder / name / "methods").glob("*.json"))]
    found = {str(run.entry["method"]): run for run in runs if run is not None}
    header = json.loads((folder / "block" / "benchmark.json").read_bytes())["header"]
    return Record(
        name=pool.name,
        family=pool.family,
        part=pool.part,
        seed=pool.seed,
        protocol=protocol,
        planned=planned(),
        seeds=seeds(),
        samples={"held-out": len(task.held_out), **{name: len(split) for name, split in task.tests.items()}},
        shifts=tuple(task.shifts),
        models=tuple(_model(path, alone[path.stem]) for path in models),
        methods=tuple(_merge(name, found[name]) for methods in compared.values() for name in methods),
        measured={
            "source": list(pool.source),
            "numerics": header["numerics"],
            "versions": header["versions"],
            "device": _device(header["numerics"]["device"]),
            "seconds": json.loads((folder / TIMES).read_text("utf-8")),
        },
    )


def _model(path: Path, outcomes: Mapping[str, Outcome]) -> Scored:
    told = json.loads(path.with_suffix(".json").read_bytes())
    return Scored(name=path.stem, correct=_bits(outcomes), facts=dict(told["settings"]))


def _merge(name: str, run: MethodRun) -> Scored:
    facts: dict[str, Any] = {
        "strategy": run.entry["strategy"],
        "partition": run.entry["partition"],
        "limits": {name: run.entry[name] for name in ("budget", "max_evaluations")},
        "status": str(run.status),
        "why": run.why,
        "ingredients": list(run.ingredients),
        "evaluations": run.evaluations,
        "forward_equivalents": round(run.forward_equivalents, 3),
        "seconds": round(run.seconds, 2),
        "inference_cost": run.inference_cost,
    }
    drawn = None if run.coefficients is None else run.coefficients.to_json()
    if drawn is not None:
        drawn["values"] = [[round(value, 6) for value in row] for row in drawn["values"]]
    return Scored(name=name, correct=_bits(run.outcomes), facts=facts, coefficients=drawn)


def _bits(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {name: outcome.to_json()["correct"] for name, outcome in outcomes.items()}


def _device(name: str) -> str:
    """The card's name, or how many cores the processor has."""
    import os

    import torch

    return torch.cuda.get_device_name() if name.startswith("cuda") else f"{os.cpu_count()} CPU cores"


@click.command("step")
@click.argument("names", nargs=-1, required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for pools and comparisons.")
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, help="Folder for records.")
@click.option("--jobs", type=int, help="Models that are trained at once.")
@click.option("--device", default="auto", show_default=True, help="Device of training and comparison.")
def step(names: Iterable[str], output: Path, records: Path, jobs: int | None, device: str) -> None:
    """Train and compare pools of the protocol, one after the other, and keep their records."""
    for pool in [pool_named(name) for name in names]:
        click.echo(make(pool, output, records, jobs, device))


@click.command("list")
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, help="Folder for records.")
def listed(records: Path) -> None:
    """List the pools of the protocol, and which of them have a record."""
    for pool in POOLS.values():
        there = "there" if (records / f"{pool.name}.json").is_file() else "missing"
        click.echo(f"{pool.name:24} {pool.part:12} seed {pool.seed}, split {pool.split}: {there}")

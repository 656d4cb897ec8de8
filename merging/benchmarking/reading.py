"""Finished runs and benchmarks, read back from their folders and put side by side; nothing is evaluated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from merging.benchmarking.folder import RESULT
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.benchmarking.runs import Coefficients
from merging.errors import FolderError
from merging.plugins.task import HELD_OUT
from merging.storage.folder import RECIPE, REPORT
from merging.values.report import models_of
from merging.values.statistics import Comparison, mean_interval, wilson


def read_folder(folder: Path) -> Benchmark:
    """What lies in the folder of a benchmark, or of a run (one row for each of its strategies).

    Raises:
        FolderError: there is neither, or it is damaged.
    """
    if (folder / RESULT).is_file():
        return Benchmark.read(folder / RESULT)
    if not folder.exists():
        raise FolderError(f"there is no folder {folder}")
    path = folder / REPORT
    if not path.is_file():
        raise FolderError(f"{folder} holds no finished run and no benchmark ({REPORT}, {RESULT})")
    try:
        report = json.loads(path.read_bytes())
        return _of_run(report, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FolderError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _of_run(report: dict[str, Any], folder: Path) -> Benchmark:
    """A run's rows. Its report has the numbers of samples of sets that were compared in pairs, and no others."""
    paired = {name: found for name, found in report["paired"].items() if name != "certify"}
    sets = dict.fromkeys(name for row in report["rows"] for name in row["tests"])
    samples = {HELD_OUT: int(report["held_out_samples"])}
    samples |= {name: int(paired[name]["samples"]) if name in paired else 0 for name in sets}
    rows = tuple(_row(row, report, samples, paired, folder) for row in report["rows"])
    header = {key: report[key] for key in ("versions", "numerics", "optimizer", "partitioner", "seed")}
    untested = [row["strategy"] for row in report["rows"] if row["strategy"] not in ("best", report["strategy"])]
    notes = list(report["notes"])
    if paired:
        silent = [*untested, *([SHIFTED] if report["shifts"] else [])]
        notes += [f"a run tests its own strategy, set by set; not tested: {', '.join(silent)}"] if silent else []
    return Benchmark(
        str(report["task"]), report["objective"], rows, (), samples, tuple(report["shifts"]), tuple(report["pool"]),
        (int(report["seed"]),), report["status"], int(report["evaluations"]), float(report["wall_seconds"]),
        tuple(notes), "", header,
    )  # fmt: skip


def _row(
    row: dict[str, Any], report: dict[str, Any], samples: Mapping[str, int], paired: Mapping[str, Any], folder: Path
) -> BenchmarkRow:
    asked = row["strategy"] == report["strategy"]
    saved = row["strategy"] == report.get("saved", report["strategy"])  # what the recipe is of
    scores = {HELD_OUT: row["held_out"], **row["tests"]}
    counted = {name for name in scores if samples[name] and (name != HELD_OUT or report["objective"] == "accuracy")}
    counted = {name for name in counted if 0 <= scores[name] <= 1}
    intervals = {name: wilson(scores[name], samples[name]) for name in scores if name in counted}
    shifts = report["shifts"]
    if shifts and counted.issuperset(shifts):
        intervals[SHIFTED] = mean_interval([scores[name] for name in shifts], [samples[name] for name in shifts])
    return BenchmarkRow(
        row["strategy"], row["strategy"], report["partitioner"] if asked else None, report["options"] if asked else {},
        held_out=row["held_out"], tests=row["tests"], shifted=row["shifted"], intervals=intervals,
        seeds=(int(report["seed"]),), ingredients=tuple(row["ingredients"]),
        models=models_of(row["ingredients"], report["pool"]), evaluations=row["evaluations"], cached=row["cached"],
        forward_equivalents=row["forward_equivalents"], seconds=row["seconds"], inference_cost=row["inference_cost"],
        against={"best": {name: _comparison(found) for name, found in paired.items()}} if asked and paired else {},
        coefficients=_coefficients(folder / RECIPE) if saved else None,
    )  # fmt: skip


def _comparison(found: Mapping[str, Any]) -> Comparison:
    """A run's paired test: one method, so that there is nothing to correct for."""
    low, high = found["interval"]
    p = float(found["p_value"])
    return Comparison(found["difference"], (low, high), found["gained"], found["lost"], found["samples"], p, p)


def _coefficients(path: Path) -> Coefficients | None:
    """The table of a run's recipe, where there is one."""
    if not path.is_file():
        return None
    recipe = json.loads(path.read_bytes())
    components = [component for component in recipe["components"] if not component["inert"]]
    table = np.array([component["coefficients"] for component in components], dtype=np.float64).T
    names = tuple(ingredient["name"] for ingredient in recipe["ingredients"])
    return Coefficients(names, tuple(component["name"] for component in components), table)


def combine(found: Mapping[str, Benchmark]) -> Benchmark:
    """Several folders' results as one: rows one below the other, the same ones once, told apart by their folders.

    The paired tests stay those of each folder: only there have all methods seen the same samples for certain.

    Args:
        found: folder's name → what it holds; at least one.
    """
    parts = list(found.values())
    if len(parts) == 1:
        return parts[0]
    rows: list[tuple[str, BenchmarkRow]] = []
    twice: list[str] = []
    for name, part in found.items():
        for row in part.rows:
            if any(_same(row, other) for _, other in rows):
                twice.append(f"{row.label} [{name}]")
            else:
                rows.append((name, row))
    often = Counter(row.label for _, row in rows)
    named = tuple(replace(row, label=f"{row.label} [{name}]") if often[row.label] > 1 else row for name, row in rows)
    samples: dict[str, int] = {}
    for part in parts:
        samples |= {name: count for name, count in part.samples.items() if not samples.get(name)}
    singles = {single.name: single for part in parts for single in part.singles}
    first = parts[0]
    return replace(
        first, task=", ".join(dict.fromkeys(part.task for part in parts)), rows=named,
        singles=tuple(single for single in singles.values() if set(single.tests) == set(samples) - {HELD_OUT}),
        samples=samples, shifts=tuple(dict.fromkeys(name for part in parts for name in part.shifts)),
        pool=tuple(dict.fromkeys(name for part in parts for name in part.pool)),
        seeds=tuple(dict.fromkeys(seed for part in parts for seed in part.seeds)),
        status=next((part.status for part in parts if part.status != "finished"), "finished"),
        evaluations=sum(part.evaluations for part in parts), wall_seconds=sum(part.wall_seconds for part in parts),
        notes=(*_differences(found), *_once(twice), *dict.fromkeys(note for part in parts for note in part.notes)),
        command="",
        header={name: dict(part.header) for name, part in found.items()},
    )  # fmt: skip


def _once(twice: Sequence[str]) -> Sequence[str]:
    return [f"in a row above, with the same scores: {', '.join(twice)}"] if twice else []


def _same(one: BenchmarkRow, other: BenchmarkRow) -> bool:
    """Whether two folders hold the same method with the same scores (baselines, mostly, whose options are not kept)."""
    for mine, theirs in ((one.options, other.options), (one.partitioner, other.partitioner)):
        if mine and theirs and mine != theirs:
            return False
    return (one.strategy, one.held_out, dict(one.tests), one.ingredients, one.why) == (
        other.strategy, other.held_out, dict(other.tests), other.ingredients, other.why,
    )  # fmt: skip


def _differences(found: Mapping[str, Benchmark]) -> Sequence[str]:
    """What makes the folders' numbers hard to compare."""
    notes = []
    facts: dict[str, dict[str, str]] = {
        "task": {name: part.task for name, part in found.items()},
        "objective": {name: part.objective for name, part in found.items()},
        "pool": {name: f"{len(part.pool)} models" for name, part in found.items()},
        "held-out samples": {name: f"{part.samples[HELD_OUT]:,}" for name, part in found.items()},
    }
    pools = {part.pool for part in found.values()}
    for what, values in facts.items():
        if len(set(values.values())) > 1 or (what == "pool" and len(pools) > 1):
            said = ", ".join(f"{value} ({name})" for name, value in values.items())
            notes.append(f"the folders differ in {what}: {said}; compare their rows with care")
    return notes

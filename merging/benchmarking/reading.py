"""Runs and benchmarks, read back from their folders; nothing is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from merging.benchmarking import memory
from merging.benchmarking.folder import RESULT
from merging.benchmarking.journalled import curves, header_of
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, Single, accurate
from merging.benchmarking.runs import Coefficients
from merging.errors import DAMAGED, FolderError, FormatError, RecipeError, near_path, raised
from merging.plugins.task import HELD_OUT
from merging.storage import journal
from merging.storage.result import RECIPE, REPORT, read_recipe
from merging.values.earlier import report_from, row_of_today, verdicts_of
from merging.values.formats import RECIPE as FORMAT
from merging.values.formats import is_newer, parsed
from merging.values.report import UNTESTED, models_of
from merging.values.states import state_of
from merging.values.statistics import mean_interval, wilson
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected, unselected
from merging.values.workers import WorkerFacts

UNSCORED = "merged without a task: no scores"
"""The reason why a run's row has no scores."""


def read_folder(folder: Path) -> Benchmark:
    """Reads the folder of a benchmark, or of a run (one row for each of its strategies).

    Raises:
        FolderError: there is neither, or it is damaged.
    """
    if (folder / RESULT).is_file() and not ((folder / REPORT).is_file() and not (folder / memory.FILE).is_file()):
        return Benchmark.read(folder / RESULT)
    if not folder.exists():
        raise FolderError(f"there is no folder {folder}{near_path(folder)}")
    path = folder / REPORT
    if not path.is_file():
        raise FolderError(unread(folder))
    try:
        report = parsed(path.read_bytes())
        report_from(report)  # which checks it
        return of_run(report, folder)
    except FormatError as error:
        raise FolderError(f"{path}: {error}") from None
    except RecipeError as error:
        raise FolderError(str(error)) from None
    except DAMAGED as error:
        raise FolderError(f"{path} is damaged: {raised(error, whole=True)}") from None


def unread(folder: Path) -> str:
    """Says why a folder that is there has no result to read, and what to do."""
    if (folder / memory.FILE).is_file():
        return f"the benchmark in {folder} has no result yet; the same command with that `output` goes on with it"
    if (folder / journal.FILE).is_file():
        return f"the run in {folder} has no result yet; go on with it: merge run `resume={folder}`"
    return f"{folder} holds no finished run and no benchmark ({REPORT}, {RESULT})"


def of_run(report: dict[str, Any], folder: Path | None) -> Benchmark:
    """A run's rows; the strategy that was asked for is compared, the others are not.

    Args:
        report: what its ``report.json`` holds.
        folder: the run's folder, whose recipe has the coefficients, and whose journal has the search; None where there
            is none.
    """
    verdicts = _verdicts(report)
    sets = dict.fromkeys(name for row in report["rows"] for name in row["tests"])
    samples = {HELD_OUT: int(report["held_out_samples"])} | dict.fromkeys(sets, 0)
    samples |= {verdict.set: verdict.samples for verdict in verdicts if verdict.set in sets}
    samples |= {name: count for name, count in report.get("samples", {}).items() if name in samples}
    rows = tuple(_row(row, report, samples, verdicts, folder) for row in report["rows"])
    searched = curves(folder, report) if folder is not None else {}
    rows = tuple(replace(row, trace=searched.get(row.strategy, ())) for row in rows)
    state, limit = state_of(report["status"])
    header = {key: report[key] for key in ("versions", "numerics", "optimizer", "partitioner", "seed")}
    begun = header_of(folder) if folder is not None else {}
    header |= {key: begun[key] for key in ("inputs", "data") if begun.get(key)}
    if isinstance(begun.get("objective"), Mapping):
        header["objective"] = begun["objective"]
    return Benchmark(
        task=str(report["task"] or ""),
        objective=report["objective"],
        rows=rows or (_unscored(report, folder),),
        singles=_singles(report),
        samples=samples,
        shifts=tuple(report["shifts"]),
        pool=tuple(report["pool"]),
        seeds=(int(report["seed"]),),
        state=state,
        evaluations=int(report["evaluations"]),
        wall_seconds=float(report["wall_seconds"]),
        notes=tuple(note for note in report["notes"] if note != report.get("doubt")),
        doubt=report.get("doubt", ""),
        command="",
        header=header,
        measure=report.get("measure", report["objective"]),
        limit=limit,
        workers=tuple(WorkerFacts.from_json(worker) for worker in report.get("workers", ())),
        run=report["strategy"],
    )


def _singles(report: dict[str, Any]) -> tuple[Single, ...]:
    """The models of the pool, in its order, that the run has scored; none of an earlier report."""
    known = {single["name"]: Single.from_json(single) for single in report.get("leaderboard", ())}
    found = [known[name] for name in report["pool"] if name in known]
    return tuple(single for single in found if single.held_out is not None or single.tests)


def _unscored(report: dict[str, Any], folder: Path | None) -> BenchmarkRow:
    """The merge of a run that had nothing to score it on."""
    return BenchmarkRow(
        strategy=report["strategy"],
        label=report["strategy"],
        partitioner=report["partitioner"],
        options=report["options"],
        why=UNSCORED,
        seeds=(int(report["seed"]),),
        ingredients=tuple(report["ingredients"]),
        models=models_of(report["ingredients"], report["pool"]),
        seconds=float(report["wall_seconds"]),
        coefficients=_coefficients(folder / RECIPE) if folder else None,
    )


def _verdicts(report: dict[str, Any]) -> tuple[Verdict, ...]:
    """Those of the strategy that was asked for, but for what has certified it; also of an earlier report."""
    return corrected([[verdict for verdict in verdicts_of(report) if verdict.role != Role.CERTIFY]])[0]


def _row(
    row: dict[str, Any],
    report: dict[str, Any],
    samples: Mapping[str, int],
    verdicts: Sequence[Verdict],
    folder: Path | None,
) -> BenchmarkRow:
    asked = row["strategy"] == report["strategy"]
    shifts, counted = report["shifts"], report.get("measure", report["objective"]) == ACCURACY
    scores = {HELD_OUT: row["held_out"], **row["tests"]}
    row = row_of_today(row, report, verdicts)
    accurate_scores = {accurate(name): value for name, value in row.get("accuracies", {}).items()}
    shown = scores if counted else accurate_scores
    sizes = {name if counted else accurate(name): count for name, count in samples.items()}
    intervals = {name: wilson(shown[name], sizes[name]) for name in shown if sizes.get(name)}
    parts = [name if counted else accurate(name) for name in shifts]
    if parts and intervals.keys() >= set(parts):
        mean = SHIFTED if counted else accurate(SHIFTED)
        intervals[mean] = mean_interval([shown[name] for name in parts], [sizes[name] for name in parts])
    return BenchmarkRow(
        strategy=row["strategy"],
        label=row["strategy"],
        partitioner=report["partitioner"] if asked else None,
        options=report["options"] if asked else {},
        held_out=row["held_out"],
        tests=row["tests"],
        shifted=row["shifted"],
        intervals=intervals,
        seeds=(int(report["seed"]),),
        ingredients=tuple(row["ingredients"]),
        models=models_of(row["ingredients"], report["pool"]),
        evaluations=row["evaluations"],
        cached=row["cached"],
        forward_equivalents=row["forward_equivalents"],
        seconds=row["seconds"],
        inference_cost=row.get("inference_cost", 1),
        verdicts=_of_row(row["strategy"], report, verdicts),
        accuracies=row.get("accuracies", {}),
        digest=row.get("digest", ""),
        coefficients=_coefficients(folder / RECIPE) if folder and _written(row, report) else None,
    )


def _written(row: dict[str, Any], report: dict[str, Any]) -> bool:
    """Whether the folder's recipe is of this row."""
    return bool(row["strategy"] == report.get("saved", report["strategy"]))


def _of_row(strategy: str, report: dict[str, Any], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts of the strategy that was asked for; of the others, that they were not tested."""
    if strategy == "best":
        return ()
    if strategy == report["strategy"]:
        return tuple(verdicts)
    blank: dict[str, Any] = dict.fromkeys(
        ("difference", "interval", "p", "corrected", "level", "test", "gained", "lost")
    )
    own = (
        replace(verdict, **blank, tests=0, why=UNTESTED, family=Family.of(verdict.role, extra=verdict.extra))
        for verdict in verdicts
    )
    return unselected(own, selected=strategy != "uniform")  # of the baselines, a plain average asks for no score


def _coefficients(path: Path) -> Coefficients | None:
    """The table of a run's recipe, where there is one that this version reads.

    Raises:
        RecipeError: it is damaged.
    """
    if not path.is_file():
        return None
    with contextlib.suppress(*DAMAGED):  # which is said below
        if is_newer(parsed(path.read_bytes()).get("format"), FORMAT):
            return None
    recipe = read_recipe(path, measured=False)
    columns = list(recipe.partition.effective)
    names = tuple(ingredient.name for ingredient in recipe.ingredients)
    return Coefficients(names, tuple(recipe.partition.names[c] for c in columns), recipe.coefficients[:, columns])

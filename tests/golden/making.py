"""Makes golden files: results of a tiny pool, and the values that every later version must read in them.

``python -m tests.golden.making`` writes tests/golden/MAJOR.MINOR for the version of this checkout. Once that is
released its files never change; a version that adds fields gets a folder of its own.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import merging
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import tiny_pool, tiny_task
from merging.values.answer import answer
from merging.values.verdict import Verdict
from tests.golden.kinds import make_kinds

HERE = Path(__file__).parent
HOW: dict[str, Any] = {"task": tiny_task, "device": "cpu", "threads": 1, "precision": "fp32", "remember": False}
SEARCHED: dict[str, Any] = {"partitioner": "layer", "optimizer": "random", "budget": 6}
"""How the run is made that is resumed, too."""
STRATEGY = ManifoldMix(tau=0.9)
FILES = ("recipe.json", "report.json", "events.jsonl", "ensemble.json", "benchmark.json", "evaluations.jsonl")
"""Names of the files whose fields are promised."""


def how(**more: Any) -> dict[str, Any]:
    """The settings of every run, with a task of its own."""
    return HOW | {"task": tiny_task()} | more


def make(folder: Path) -> dict[str, Any]:
    """Makes all results in an empty folder.

    Returns:
        The values that a reader must find, from the results in memory.
    """
    pool = tiny_pool(folder / "pool")
    run = merging.merge(pool, STRATEGY, output=folder / "run", **how(**SEARCHED))
    weights = merging.merge(pool, "ties", output=folder / "weights", device="cpu", threads=1)
    ensemble = merging.merge(pool, "ensemble", output=folder / "ensemble", **how())
    methods = ["best", "uniform", "greedy", STRATEGY]
    compared = merging.benchmark(pool, methods, output=folder / "benchmark", partitioners=["layer"], **how(budget=6))
    killed = folder / "killed" / "events.jsonl"
    killed.parent.mkdir()
    journal = (folder / "run" / "events.jsonl").read_bytes()
    killed.write_bytes(journal[: journal.rindex(b'"split"')])  # what a kill leaves: a beginning, the last line torn
    for name in ("pictures", "methods"):
        shutil.rmtree(folder / "benchmark" / name, ignore_errors=True)
    for path in sorted(folder.glob("benchmark/*")):
        if path.name not in FILES:
            path.unlink()
    return {
        "kinds": make_kinds(folder / "kinds"),
        "run": _of_report(run.report),
        "weights": {"hash": weights.report.content_hash, "ingredients": list(weights.report.ingredients)},
        "ensemble": {"members": list(ensemble.report.ingredients), "verdicts": _told(ensemble.report.verdicts)},
        "benchmark": {row.label: [row.held_out, dict(row.tests), _told(row.verdicts)] for row in compared.rows},
    }


def _of_report(report: merging.Report) -> dict[str, Any]:
    return {
        "hash": report.content_hash,
        "status": report.status,
        "evaluations": report.evaluations,
        "rows": {row.strategy: [row.held_out, dict(row.tests), list(row.ingredients)] for row in report.rows},
        "verdicts": _told(report.verdicts),
        "standing": str(answer(report).standing),
    }


def _told(verdicts: Iterable[Verdict]) -> list[list[Any]]:
    """What is promised of verdicts: set, word, difference, interval, p, counts."""
    scores = ("difference", "interval", "p", "corrected", "gained", "lost", "samples")
    found = [verdict.to_json() for verdict in verdicts]
    return [[each[name] for name in ("set", "reference", "verdict", *scores)] for each in found]


def fields_of(folder: Path) -> dict[str, list[str]]:
    """The fields of every promised file below a folder, with the types of their values; null may be any."""
    found = {}
    for path in sorted(path for path in folder.rglob("*.json*") if path.name in FILES):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        seen: set[str] = set()
        for line in lines if path.parent.name != "killed" else lines[:-1]:
            value = json.loads(line)
            seen.update(_fields(value, value["event"] if path.suffix == ".jsonl" else ""))
        found[path.relative_to(folder).as_posix()] = sorted(seen)
    return found


def _fields(value: Any, at: str) -> Iterable[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _fields(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for inner in value or [None]:
            yield from _fields(inner, f"{at}[]")
    else:
        kind = "number" if type(value) in (int, float) else type(value).__name__
        yield at if value is None else f"{at}: {kind}"


def main() -> None:
    """Writes the folder of this version; one that is there must be removed by hand."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = sys.argv[1] if len(sys.argv) > 1 else ".".join(project["version"].split(".")[:2])
    # A place that says nothing of the machine, because recipes name the files that they were made from.
    place = Path(tempfile.gettempdir()) / "merging-golden"
    place.mkdir()
    try:
        expected = make(place)
        (place / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        here = re.compile(rf"\b{re.escape(platform.node())}\b")  # workers say on which machine they were
        for path in ((place / "kinds" / "certified" / "merged" / file) for file in ("report.json", "README.md")):
            path.write_text(here.sub("node", path.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copytree(place, HERE / name)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()

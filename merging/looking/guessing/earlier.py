"""Results of earlier commands among the checkpoints of a folder: they are merges, and no models to be merged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from merging.errors import DAMAGED
from merging.storage.journal import FILE as JOURNAL
from merging.storage.model_folder import is_weights
from merging.storage.result import RECIPE, REPORT

_BENCHMARK = "benchmark.json"
_REPORTED = {"strategy", "status", "pool"}
"""What every report of a run has, and hardly another program's file of that name."""


def is_result(folder: Path) -> bool:
    """Whether ``merge run`` or ``merge benchmark`` has written into a folder; another program's report is none."""
    if any((folder / name).is_file() for name in (RECIPE, _BENCHMARK)):
        return True
    return _has(folder / REPORT, _REPORTED) or _has(folder / JOURNAL, {"event", "request"}, first=True)


def written_by(folders: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """The model file that each run has written, and the run's folder.

    Left out are runs that wrote one of their own models again, such as the best single one: whatever has its weights
    may be that model itself.
    """
    for folder in folders:
        try:
            report = json.loads((folder / REPORT).read_bytes())
            again = report["content_hash"] in {ingredient["hash"] for ingredient in report["lineage"]}
            files = [path for path in folder.iterdir() if is_weights(path)]
        except DAMAGED:
            continue
        if not again and len(files) == 1:
            yield files[0], folder


def _has(file: Path, keys: set[str], *, first: bool = False) -> bool:
    """Whether a JSON file, or the first line of one, has these keys."""
    try:
        with open(file, "rb") as opened:
            said = json.loads(opened.readline() if first else opened.read())
    except DAMAGED:
        return False
    return isinstance(said, dict) and keys <= said.keys()

"""Runs, benchmarks and fine-tuned pools that lie below a folder, as far as their records tell; torch is not needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from merging.benchmarking import memory
from merging.benchmarking.folder import METHODS, RESULT
from merging.errors import DAMAGED, FormatError, raised, showable
from merging.storage import journal
from merging.storage.lock import is_held
from merging.storage.result import MEMBERS, REPORT
from merging.values.answer import answer, gains_and_losses, standing_of
from merging.values.earlier import report_from
from merging.values.formats import JOURNAL, check_format, parsed
from merging.values.report import models_of
from merging.values.states import RunState, state_of
from merging.values.verdict import ACCURACY, MARKS, Standing, Verdict

POOL = "finetune.json"
"""Record of a fine-tuned pool, as :mod:`merging.training.folder` writes it."""
DEPTH = 3
"""Levels of folders below the one that is looked into."""
SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__", METHODS, MEMBERS})


class Kind(StrEnum):
    """The command that has made a folder."""

    RUN = "run"
    BENCHMARK = "benchmark"
    FINETUNE = "finetune"
    COMPARISON = "report"
    """Results of other folders, put side by side."""


class State(StrEnum):
    """The state of a folder: that in which its run has ended, or why it has not."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    LIMIT = "limit"
    RUNNING = "running"
    """A process holds its lock."""
    CUT_OFF = "cut off"
    """Nobody writes there, and there is no result: it was killed, or the machine went down."""
    DAMAGED = "damaged"
    NEWER = "newer"
    """A later version has written it, in a format that this one cannot read."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One folder, and what its record says; what it does not say is None.

    Attributes:
        folder: the folder itself, as it was reached.
        kind: the command that has made it.
        state: how it has ended.
        status: the state in words; of a damaged or newer one, what is wrong with it.
        time: seconds since the epoch at which its record was written last.
        strategy: the strategy of a run; of a benchmark the method that its answer says to take; of a pool its regime.
        saved: the strategy whose model a run has saved, where its own has none that is as good, or none yet.
        methods: how many methods a benchmark compares.
        models: how many models are in the merge, or in the fine-tuned pool.
        pool: how many there were to merge.
        measure: what the scores are: ``accuracy``, a fraction, or the objective's name.
        test_set: the first test set that is not shifted.
        best_single: the best single model's name.
        difference: test score less the best single model's; of held-out scores where nothing was tested.
        standing: how it stands by all sets that count, as its answer says: worse where it is worse on any.
        gained: the sets that count on which it is better.
        lost: the sets that count on which it is worse.
    """

    folder: Path
    kind: Kind
    state: State
    status: str
    time: float
    task: str | None = None
    strategy: str | None = None
    saved: str | None = None
    methods: int | None = None
    models: int | None = None
    pool: int | None = None
    measure: str = ACCURACY
    held_out: float | None = None
    test: float | None = None
    test_set: str | None = None
    best_single: str | None = None
    difference: float | None = None
    standing: Standing = Standing.NOT_TESTED
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The signs that a table shows: of a gain, of a loss, or both."""
        both = MARKS[Standing.BETTER] * bool(self.gained) + MARKS[Standing.WORSE] * bool(self.lost)
        return both or MARKS[self.standing]

    def to_json(self) -> dict[str, Any]:
        """Gives JSON-ready values; the time in UTC."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("time", "standing")}
        words = {name: str(values[name]) for name in ("folder", "kind", "state")}
        when = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds")
        sets = {"gained": [*map(showable, self.gained)], "lost": [*map(showable, self.lost)]}
        return values | words | {"time": when, "verdict": str(self.standing)} | sets


def entries(folder: Path, depth: int = DEPTH) -> list[Entry]:
    """Lists the results in a folder and below, the newest first.

    Args:
        folder: is looked into itself, too.
        depth: levels of folders below it; hidden ones and virtual environments are left out.
    """
    found = [entry for place in _places(folder, depth) if (entry := entry_of(place)) is not None]
    return sorted(found, key=lambda entry: (-entry.time, str(entry.folder)))


def entry_of(folder: Path) -> Entry | None:
    """Reads what one folder is; None where neither ``merge run`` nor ``benchmark`` nor ``finetune`` has made it."""
    for kind, result, begun, read in (
        (Kind.BENCHMARK, RESULT, memory.FILE, _benchmark),
        (Kind.RUN, REPORT, journal.FILE, _run),
        (Kind.FINETUNE, POOL, POOL, _pool),
    ):
        ours, there = (folder / begun).is_file(), (folder / result).is_file()
        if not ours and (not there or (kind is Kind.BENCHMARK and (folder / REPORT).is_file())):
            continue  # also where a run's tables were written beside it
        kind = Kind.COMPARISON if kind is Kind.BENCHMARK and not ours else kind
        record = folder / (result if there else begun)
        facts: dict[str, Any] = {"folder": folder, "kind": kind, "time": _time(record)}
        running = is_held(folder)
        try:
            told = read(folder) if there else _begun(record)
        except FormatError as error:
            return Entry(**facts, state=State.RUNNING if running else State.NEWER, status=f"{record.name}: {error}")
        except DAMAGED as error:
            if not ours and kind is not Kind.FINETUNE:
                return None  # another program's file of that name
            wrong = f"{record.name} is damaged: {raised(error)}"
            return Entry(**facts, state=State.RUNNING if running else State.DAMAGED, status=wrong)
        if told is None:
            return None
        if running:
            told |= {"state": State.RUNNING, "status": str(State.RUNNING)}
        return Entry(**facts, **told)
    return None


def _places(folder: Path, depth: int, seen: set[str] | None = None) -> Iterator[Path]:
    """The folders that may be results, each once; what lies within a result is part of it.

    Links are followed, because ``runs`` may lie on another disk, behind the folders beside them; ``seen`` are the real
    paths of the folders that were reached, which ends circles.
    """
    seen = set() if seen is None else seen
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    yield folder
    if depth < 1 or any((folder / name).is_file() for name in (RESULT, REPORT, journal.FILE, memory.FILE)):
        return
    try:
        with os.scandir(folder) as listed:
            below = sorted((each.is_symlink(), each.name) for each in listed if each.is_dir())
    except OSError:  # another user's
        return
    for _, name in below:
        place = folder / name
        if not name.startswith(".") and name not in SKIPPED and not (place / "pyvenv.cfg").exists():
            yield from _places(place, depth - 1, seen)


def _time(record: Path) -> float:
    try:
        return record.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _begun(record: Path) -> dict[str, Any] | None:
    """What the first line of a journal says of a run, or a benchmark, that has no result."""
    told: dict[str, Any] = {"state": State.CUT_OFF, "status": "cut off, without a result yet"}
    with open(record, "rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return told
    header = parsed(line)
    check_format(header.get("format", JOURNAL), JOURNAL)
    for name in ("task", "strategy"):
        said = header.get(name)
        told[name] = _text(said.get("name") if isinstance(said, Mapping) else said)
    told["pool"] = len(header["inputs"]) if isinstance(header.get("inputs"), Mapping) else None
    return told


def _run(folder: Path) -> dict[str, Any] | None:
    report = parsed((folder / REPORT).read_bytes())
    if not (isinstance(report, dict) and {"strategy", "status", "pool"} <= report.keys()):
        if (folder / journal.FILE).is_file():
            raise ValueError("it is no report of a run")
        return None
    state, _ = state_of(report["status"])
    rows = {row["strategy"]: row for row in report["rows"]}
    saved = report.get("saved") or report["strategy"]
    told: dict[str, Any] = {"state": _ended(state), "status": str(report["status"])}
    told |= {"task": _text(report["task"]), "strategy": _text(report["strategy"]), "measure": _measure(report)}
    told["saved"] = None if saved == report["strategy"] else _text(saved)
    told |= {"models": models_of(report["ingredients"], report["pool"]), "pool": len(report["pool"])}
    told |= _scores(rows.get(saved), rows.get("best"), report["shifts"])
    whole = report_from(report)
    told["standing"] = answer(whole).standing
    if told["standing"] is not Standing.REFERENCE and not whole.saved_instead:
        itself = whole.merged is not None and whole.is_best_single(whole.merged)
        told |= _sets(() if itself else whole.verdicts)
    return told


def _benchmark(folder: Path) -> dict[str, Any] | None:
    found = parsed((folder / RESULT).read_bytes())
    if not (isinstance(found, dict) and str(found.get("format", "")).startswith("merging-benchmark/")):
        if (folder / memory.FILE).is_file():
            raise ValueError("it is no result of a benchmark")
        return None
    from merging.benchmarking.rendering.answer import answer as answer_of
    from merging.benchmarking.rendering.answer import recommended
    from merging.benchmarking.results import Benchmark

    state, _ = state_of(found["status"])
    told: dict[str, Any] = {"state": _ended(state), "status": str(found["status"]), "methods": len(found["rows"])}
    told |= {"task": _text(found["task"]), "measure": _measure(found), "pool": len(found["pool"])}
    whole = Benchmark.from_json(found)
    top = recommended(whole)
    if top is None:
        return told | {"standing": answer_of(whole).standing}
    told |= {"strategy": _text(top.label), "models": round(top.models)}
    rows = {row["label"]: row for row in found["rows"]}
    single = next((row for row in found["rows"] if row["strategy"] == "best"), None)
    told |= _scores(rows[top.label], single, found["shifts"])
    against_best = [verdict for verdict in top.verdicts if verdict.reference == "best"]
    return told | {"standing": standing_of(against_best)} | _sets(against_best)


def _pool(folder: Path) -> dict[str, Any] | None:
    record = parsed((folder / POOL).read_bytes())
    if not (isinstance(record, dict) and "sweep" in record):
        return None
    scores = []
    for path in sorted(folder.glob("model_*.json")):
        model = parsed(path.read_bytes())
        if model.get("held_out") is not None:
            scores.append(float(model["held_out"]))
    state = State.FINISHED if scores else State.CUT_OFF
    regime = record.get("regime")
    named = regime.get("name") if isinstance(regime, Mapping) else regime
    told: dict[str, Any] = {
        "state": state,
        "status": str(state),
        "task": _text(record.get("task")),
        "strategy": _text(named),
    }
    return told | {"models": len(scores), "held_out": max(scores, default=None)}


def _sets(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    gained, lost = gains_and_losses(verdicts)
    return {"gained": gained, "lost": lost}


def _scores(row: Mapping[str, Any] | None, single: Mapping[str, Any] | None, shifts: list[str]) -> dict[str, Any]:
    """Scores of a merge, against those of the best single model on the first set that has not chosen it."""
    if row is None:
        return {}
    name = next((each for each in row["tests"] if each not in shifts), None)
    told: dict[str, Any] = {"held_out": row["held_out"], "test": row["tests"].get(name), "test_set": name}
    if single is None:
        return told
    told["best_single"] = _text(next(iter(single["ingredients"]), None))
    if row is single:
        return told
    mine, others = (row["held_out"], single["held_out"]) if name is None else (told["test"], single["tests"].get(name))
    if mine is not None and others is not None:
        told["difference"] = mine - others
    return told


def _ended(state: RunState) -> State:
    return State(str(state))


def _measure(told: Mapping[str, Any]) -> str:
    return str(told.get("measure") or told.get("objective") or ACCURACY)


def _text(value: Any) -> str | None:
    return None if value is None else showable(value)

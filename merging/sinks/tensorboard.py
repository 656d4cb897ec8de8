"""TensorBoard: curves, decisions, scores and the verdict of a run as event files."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from merging.plugins.options import option
from merging.plugins.registry import sinks
from merging.plugins.sink import Sink, SinkEnd, SinkEvent, SinkRun, SinkWriter
from merging.storage import atomic
from merging.values.markdown import plain

_FILE = "events.out.tfevents."
"""Begins the names of event files, by which TensorBoard knows them."""
_OURS = ".merging"
"""Ends those that a run has written."""


@sinks.register("tensorboard")
@dataclass(frozen=True)
class TensorBoard(Sink):
    """Writes event files: ``tensorboard --logdir DIR`` shows them while the run goes on, and afterwards.

    Each strategy of a run has curves of its own: every held-out score (``held_out/score``) and the best so far
    (``held_out/incumbent``) over evaluations, the same over forward-equivalents (``held_out_by_passes/…``), and its
    decisions as text, with ``decisions/accepted`` 1 or 0. At the end come the scores of what is saved on every set
    (``final/…``), the hyper-parameters, the verdict and the coefficients.
    """

    summary: ClassVar[str] = "curves, decisions and verdict in TensorBoard"
    formula: ClassVar[str] = "incumbent(t) = the largest held-out score that the strategy has been told up to step t"
    paper: ClassVar[str] = "TensorBoard, https://www.tensorflow.org/tensorboard"
    limits: ClassVar[str] = (
        "Steps are whole numbers: forward-equivalents are rounded up. A run that goes on, or is made anew, writes its "
        "curves again from the first event on; the event files of before are removed."
    )
    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)
    brought_by: ClassVar[str] = "merging[tensorboard]"

    folder: str | None = option(None, "Folder for the runs, each in one of its own; none: tensorboard, in the run's.")

    def check(self, run: SinkRun) -> None:
        """Refuses a run that has no folder where none is given either."""
        run.place("tensorboard", self.folder)

    def begin(self, run: SinkRun) -> SinkWriter:
        """Begins with event files; none is there before the first score.

        Those of an earlier session are removed: what they say is told again, and the reader would show texts twice.
        """
        folder = run.place("tensorboard", self.folder)
        atomic.remove(*folder.rglob(f"{_FILE}*{_OURS}"))
        return _Curves(run, folder)


class _Curves(SinkWriter):
    """The event files of one run: one a strategy, and one for what is said of the whole."""

    def __init__(self, run: SinkRun, folder: Path) -> None:
        self._run, self._folder, self._step = run, folder, 0
        self._files: dict[str, _EventFile] = {}

    def event(self, event: SinkEvent) -> None:
        """A score is a point of four curves, a decision a text and a point."""
        self._step = event.evaluations
        if event.scored is not None:
            passes = math.ceil(event.forward_equivalents)
            for tag, step in (("held_out", event.evaluations), ("held_out_by_passes", passes)):
                self._of(event.strategy).scalar(f"{tag}/score", event.scored, step, event.time)
                self._of(event.strategy).scalar(f"{tag}/incumbent", event.best, step, event.time)
        elif event.name == "decision":
            file = self._of(event.strategy)
            file.text("decisions", _sentence(event.facts), event.evaluations, event.time)
            if isinstance(event.facts.get("accepted"), bool):
                file.scalar("decisions/accepted", float(event.facts["accepted"]), event.evaluations, event.time)

    def end(self, end: SinkEnd) -> None:
        """Scores, hyper-parameters, verdict and coefficients, where there is anything to show."""
        if self._files or end.report:
            whole = self._of("")
            for split, score in end.scores.items():
                whole.scalar(f"final/{split}", score, self._step, time.time())
            told = [f"**{plain(end.verdict)}**"] if end.verdict else []
            told += [f"- {plain(line)}" for line in end.answer.get("lines", ())]
            state = plain(f"{end.state}: {end.why}" if end.why else end.state)
            whole.text("verdict", "\n".join([*told, "", state]), self._step, time.time())
            if end.coefficients:
                whole.text("coefficients", _table(end.coefficients), self._step, time.time())
            whole.hparams(self._run.settings, {f"final/{name}": score for name, score in end.scores.items()})
        for file in self._files.values():
            file.close()

    def _of(self, strategy: str) -> _EventFile:
        name = "" if self._run.part else strategy  # of a benchmark, the curves of all methods have one name
        if name not in self._files:
            self._files[name] = _EventFile(self._folder / name)
        return self._files[name]


class _EventFile:
    """One event file, each record in it as soon as it is told."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        now, nanoseconds = time.time(), time.time_ns()
        name = f"{_FILE}{nanoseconds // 10**9:010d}.{nanoseconds % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
        path = folder / f"{name}{_OURS}"
        self._file = open(path, "xb")  # noqa: SIM115 (open as long as the run)
        self._records, self._event = RecordWriter(self._file), Event
        self._put(Event(wall_time=now, file_version="brain.Event:2"))
        # A reader that has seen an earlier session drops its points from this step on.
        self._put(Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, tag: str, value: float | None, step: int, when: float) -> None:
        """Adds a point."""
        from torch.utils.tensorboard.summary import scalar

        if value is not None:
            self._put(self._event(wall_time=when, step=step, summary=scalar(tag, value)))

    def text(self, tag: str, markdown: str, step: int, when: float) -> None:
        """Adds a text."""
        from torch.utils.tensorboard.summary import text

        self._put(self._event(wall_time=when, step=step, summary=text(tag, markdown)))

    def hparams(self, settings: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """Adds a run's row in the table of hyper-parameters."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(settings), dict(scores)):
            self._put(self._event(wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _put(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def _sentence(facts: Mapping[str, Any]) -> str:
    """A decision as a line of Markdown: what was decided, then by what."""
    head = {True: "accepted", False: "refused"}.get(facts.get("accepted"), "")  # type: ignore[arg-type]
    rest = [f"{name} {_short(value)}" for name, value in facts.items() if name != "accepted"]
    return plain(", ".join([*([head] if head else []), *rest]))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(coefficients: Mapping[str, Any]) -> str:
    """A recipe's coefficients as a table in Markdown: a row a model, a column a component."""
    heads = ["", *map(plain, coefficients["components"])]
    rows = [
        [plain(model), *(f"{value:.4g}" for value in values)]
        for model, values in zip(coefficients["ingredients"], coefficients["values"], strict=True)
    ]
    return "\n".join(_line(cells) for cells in [heads, ["---"] * len(heads), *rows])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

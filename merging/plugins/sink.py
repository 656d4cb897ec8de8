"""The interface of sinks: who is told what a run's journal holds, as it happens, and shows or keeps it elsewhere."""

from __future__ import annotations

import importlib.util
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from merging.errors import MergingError, OptionError, RequirementError
from merging.plugins.options import Plugin
from merging.plugins.user_code import file_of, kind_of, named


@dataclass(frozen=True, kw_only=True)
class SinkRun:
    """The run that a sink is told of; of a benchmark, the run of one method.

    Attributes:
        name: its name for people: that of its folder, or of its strategy where nothing is written.
        header: what its journal begins with: ``strategy``, ``inputs``, ``numerics``, …, JSON-ready.
        folder: the folder that it is written to, or None.
        part: the run of a benchmark that it is, such as ``greedy.whole.seed0``; else empty.
        resumed: whether it goes on; events of before are told again (:attr:`SinkEvent.again`).
    """

    name: str
    header: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    part: str = ""
    resumed: bool = False

    def place(self, own: str, given: str | None = None, *, shared: bool = False) -> Path:
        """The folder for a sink's files; it is not made.

        Args:
            own: name of the folder below the run's, where nobody gave another one.
            given: the folder that the user gave; each run has one below it.
            shared: whether all runs have one folder, such as that of a database.

        Raises:
            OptionError: nobody gave one, and the run is written nowhere.
        """
        if given is None and self.folder is None:
            raise OptionError(
                f"the sink {own} writes to a folder, and this run has none: give `output`, or {own}:folder=DIR"
            )
        below = Path(self.folder or "") / own if given is None else Path(given).expanduser().absolute()
        if shared:
            return below
        below = below if given is None else below / self.name
        return below / self.part if self.part else below

    @property
    def settings(self) -> dict[str, bool | int | float | str]:
        """The options that the run was told, on one level, as tables of hyper-parameters take them."""
        found: dict[str, Any] = {"models": len(self.header.get("inputs", ()))}
        for name in ("strategy", "partitioner", "optimizer", "objective"):
            own = self.header.get(name) or {}
            found[name] = own.get("name", "")
            found |= {f"{name}.{option}": value for option, value in own.get("options", {}).items()}
        found |= {name: self.header.get(name) for name in ("task", "seed", "budget")}
        return {
            name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in found.items()
        }


@dataclass(frozen=True, kw_only=True)
class SinkEvent:
    """An event of a run's journal, and how far the run is with it.

    Attributes:
        name: ``run``, ``strategy``, ``evaluation``, ``test``, ``decision``, ``certificate``, ``stopped``, ``finished``.
        facts: its other fields, as the journal has them: JSON-ready.
        strategy: the strategy that is at work; empty before the first.
        best: the best held-out score that this strategy has been told so far; None before any.
        evaluations: distinct held-out evaluations of the whole run so far, this one included.
        forward_equivalents: held-out passes of the whole run so far.
        again: whether an earlier session of the run has been through it.
        time: seconds since the epoch at which it was told.
    """

    name: str
    facts: Mapping[str, Any]
    strategy: str = ""
    best: float | None = None
    evaluations: int = 0
    forward_equivalents: float = 0.0
    again: bool = False
    time: float = field(default_factory=time.time)

    @property
    def scored(self) -> float | None:
        """The score of a held-out evaluation that a strategy has asked for; None of every other event."""
        own = self.name == "evaluation" and self.facts["split"] == "held-out" and not self.facts.get("record")
        return float(self.facts["score"]) if own else None


@dataclass(frozen=True, kw_only=True)
class SinkEnd:
    """The end of a run, however it came.

    Attributes:
        state: ``finished``, ``limit``, ``interrupted`` or ``failed``.
        why: the reason in a line, where it is not finished.
        scores: set → score of the merge that is saved, in the objective's unit; ``held-out`` is one of them.
        verdict: the answer's headline; empty where nothing was tested.
        answer: :meth:`merging.Answer.to_json`; empty of a benchmark's runs, which are compared at its end.
        report: what ``report.json`` holds; of a benchmark's run its costs and ingredients.
        coefficients: ``ingredients``, ``components`` and ``values`` of a linear merge, a row an ingredient; else empty.
        files: report, recipe, model card and what else describes the model, where they lie.
        model: the files of the model itself.
    """

    state: str
    why: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    coefficients: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    model: tuple[Path, ...] = ()


class SinkWriter:
    """The part of a sink that is told of one run; its two methods do nothing until they are overridden."""

    def event(self, event: SinkEvent) -> None:
        """Called with every event of the run, in order."""

    def end(self, end: SinkEnd) -> None:
        """Called once, last, also where the run was stopped or has failed."""


@dataclass(frozen=True)
class Sink(Plugin):
    """Base of sinks: frozen dataclasses that are told what happens in a run, and change nothing in it.

    Each sink of a run is called on a thread of its own, so that the run does not wait for it. One that raises is left
    out from then on, with a warning.

    Attributes:
        packages: packages that it imports when a run begins; without them the run is refused before any work.
        brought_by: what ``pip install`` takes to bring them.
        patience: seconds that a finished run waits while the sink does not get on; then it is left behind.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    brought_by: ClassVar[str] = ""
    patience: ClassVar[float] = 60.0

    @abstractmethod
    def begin(self, run: SinkRun) -> SinkWriter:
        """Begins with a run; the one method that a sink must have.

        Returns:
            What is told the run's events and its end; a new one each time.
        """

    def check(self, run: SinkRun) -> None:
        """Says before any work what would keep :meth:`begin` from its work; nothing is written here.

        Args:
            run: the run as far as it is known; a benchmark's without its ``part``.

        Raises:
            MergingError: something is missing; the run does not begin.
        """

    def check_packages(self) -> None:
        """Refuses a sink whose packages are not installed; they are not imported.

        Raises:
            RequirementError: one is not there; it says how to install it.
        """
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                way = f"; install it with: pip install '{self.brought_by}'" if self.brought_by else ""
                raise RequirementError(f"{named('sink', self)} needs {package}{way}")


def begun(sink: Sink, run: SinkRun) -> SinkWriter:
    """Begins with a run, and checks that what comes back can be told of it.

    Raises:
        MergingError: it cannot.
    """
    writer = sink.begin(run)
    if not all(callable(getattr(writer, name, None)) for name in ("event", "end")):
        raise MergingError(f"{named('sink', sink)} began with {kind_of(writer)}, not a SinkWriter{file_of(sink)}")
    return writer

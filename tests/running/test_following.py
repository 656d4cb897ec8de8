"""Sinks are told what the journal is told, and nothing that they do reaches the run."""

from __future__ import annotations

import _thread
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

import merging
from merging.errors import MergingError, OptionError, RequirementError, UnknownNameError
from merging.plugins.sink import Sink, SinkEnd, SinkEvent, SinkRun, SinkWriter
from merging.running.following import Followers
from merging.running.plan import plan
from merging.running.session import Session
from merging.running.settings import Settings
from merging.storage.journal import FILE, Journal
from merging.storage.pool import ModelPool
from merging.testing import tiny_task
from merging.values.formats import JOURNAL
from tests.conftest import Merge
from tests.evaluation.workers.in_turns import InTurns, in_turns
from tests.heard import Heard


@dataclass
class Notes(SinkWriter):
    """Everything that a sink is told of one run."""

    run: SinkRun
    events: list[SinkEvent] = field(default_factory=list)
    ends: list[SinkEnd] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def event(self, event: SinkEvent) -> None:
        assert not self.ends
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    def end(self, end: SinkEnd) -> None:
        self.ends.append(end)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [(e.name, e.strategy, e.best, e.evaluations, e.forward_equivalents, e.scored) for e in self.events]


@dataclass(frozen=True)
class Noted(Sink):
    """Keeps what it is told."""

    name: ClassVar[str] = "noted"
    runs: ClassVar[list[Notes]] = []

    def begin(self, run: SinkRun) -> SinkWriter:
        self.runs.append(Notes(run))
        return self.runs[-1]


@pytest.fixture
def runs() -> list[Notes]:
    Noted.runs.clear()
    return Noted.runs


@dataclass(frozen=True)
class Failing(Sink):
    """Fails where it is told to."""

    name: ClassVar[str] = "failing"
    patience: ClassVar[float] = 0.3

    at: str = merging.option("begin", "where", choices=("begin", "event", "end", "exit", "full", "hang", "nothing"))

    def begin(self, run: SinkRun) -> SinkWriter:
        if self.at == "begin":
            raise ValueError("no such place")
        return "a path" if self.at == "nothing" else Broken(self.at)  # type: ignore[return-value]


class Broken(SinkWriter):
    def __init__(self, at: str) -> None:
        self.at = at

    def event(self, event: SinkEvent) -> None:
        if event.name == "evaluation" and self.at != "end":
            if self.at == "exit":
                sys.exit(3)
            if self.at == "hang":
                threading.Event().wait()
            if self.at == "full":
                with open("/dev/full", "wb") as file:
                    file.write(b"a score")
            raise ValueError("cannot draw it")

    def end(self, end: SinkEnd) -> None:
        raise ValueError("cannot end it")


SAID = {
    "begin": "ValueError: no such place",
    "event": "ValueError: cannot draw it",
    "end": "ValueError: cannot end it",
    "exit": "SystemExit: 3",
    "full": "No space left on device",
    "hang": "has not moved for 0.3 s",
    "nothing": "began with a str of length 6, not a SinkWriter",
}


def timeless(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]
    return [{key: value for key, value in event.items() if key not in ("seconds", "time")} for event in events]


@pytest.mark.parametrize("at", SAID)
def test_what_fails_is_one_warning(at: str, pool: ModelPool, tmp_path: Path, runs: list[Notes]) -> None:
    heard, sinks = Heard(), (Failing(at=at), Noted())
    with_it = merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "a", sinks=sinks, progress=heard)
    without = merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "b", progress=heard)
    (said,) = [text for text in heard.said if "sink" in text]
    assert said.startswith("warning: sink 'failing'")
    assert SAID[at] in said
    assert said.endswith("it is left out, and the run goes on without it")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    assert with_it.report.content_hash == without.report.content_hash
    assert with_it.report.notes == without.report.notes
    assert [end.state for end in runs[0].ends] == ["finished"]  # the other one is told to the end


@dataclass(frozen=True)
class Endless(Sink):
    """Has the user lose patience before it does."""

    name: ClassVar[str] = "endless"

    def begin(self, run: SinkRun) -> SinkWriter:
        return Impatient()


class Impatient(SinkWriter):
    def end(self, end: SinkEnd) -> None:
        _thread.interrupt_main()
        threading.Event().wait()


def test_ctrl_c_ends_the_wait_and_keeps_the_result(pool: ModelPool, tmp_path: Path) -> None:
    heard = Heard()
    result = merging.merge(pool, "uniform", output=tmp_path / "run", sinks=Endless(), progress=heard)
    assert result.report.status == "finished"
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert [text for text in heard.said if "sink 'endless' was still at work when the wait" in text]


def test_who_listens_nowhere_is_warned_where_programs_are(pool: ModelPool, caplog: pytest.LogCaptureFixture) -> None:
    merging.merge(pool, "uniform", sinks=Failing(at="begin"))
    assert "sink 'failing' failed: ValueError: no such place" in caplog.text


def test_a_run_is_told_as_its_report_has_it(pool: ModelPool, tmp_path: Path, runs: list[Notes]) -> None:
    result = merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "run", sinks=Noted)
    (notes,) = runs
    written = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text("utf-8").splitlines()]
    assert written[0].pop("format") == JOURNAL  # of the file, and no fact of the run
    assert [{"event": event.name, **event.facts} for event in notes.events] == written
    last, report = notes.events[-1], result.report
    assert (last.evaluations, last.forward_equivalents) == (report.evaluations, report.forward_equivalents)
    assert not any(event.again for event in notes.events)
    assert notes.threads == {"sink 'noted'"}
    scores = [event.scored for event in notes.events if event.strategy == "best" and event.scored is not None]
    assert [event.best for event in notes.events if event.strategy == "best" and event.scored is not None] == [
        max(scores[: place + 1]) for place in range(len(scores))
    ]
    greedy = [event for event in notes.events if event.strategy == "greedy" and event.name == "decision"]
    assert greedy[0].best is not None
    assert greedy[0].best >= report.top_single  # type: ignore[operator]  # told from memory, before anything new
    (end,) = notes.ends
    assert end.state == "finished"
    row = next(row for row in report.rows if row.strategy == "greedy")
    assert end.scores == {"held-out": row.held_out, **row.tests}
    assert end.verdict == merging.answer(report).headline
    assert end.coefficients["ingredients"] == list(report.ingredients)
    assert {path.name for path in end.files} == {"README.md", "recipe.json", "report.json"}
    assert [path.name for path in end.model] == ["model.safetensors"]
    assert notes.run.header["strategy"]["name"] == "greedy"
    assert (notes.run.name, notes.run.folder, notes.run.resumed) == ("run", tmp_path / "run", False)
    json.dumps([end.answer, end.report, end.coefficients, dict(notes.run.header)], allow_nan=False)


def test_a_run_that_goes_on_is_told_from_its_beginning(pool: ModelPool, tmp_path: Path, runs: list[Notes]) -> None:
    for name, limits in (("whole", [None]), ("parts", [5, None])):
        for limit in limits:
            merging.merge(
                pool,
                "greedy",
                task=tiny_task(),
                output=tmp_path / name,
                resume=limit != limits[0],
                max_evaluations=limit,
                sinks=[Noted()],
            )
    whole, first, second = runs
    assert second.told == whole.told
    assert second.run.resumed
    assert 0 < sum(event.again for event in second.events) < len(second.events)
    assert [event.again for event in second.events] == sorted((e.again for e in second.events), reverse=True)
    assert (first.ends[0].state, first.ends[0].why) == ("limit", "limit of 5 evaluations reached")
    assert first.events[-1].name != "finished"


def test_an_interruption_is_an_end(pool: ModelPool, tmp_path: Path, runs: list[Notes]) -> None:
    def stop() -> bool:
        return bool(runs and len(runs[-1].events) > 6)

    result = merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "run", sinks=Noted, should_stop=stop)
    assert result.report.status == "interrupted"
    assert [end.state for end in runs[0].ends] == ["interrupted"]


@dataclass(frozen=True)
class Bad(merging.MixStrategy):
    """Fails, or is interrupted, before there is anything."""

    error: ClassVar[type[BaseException]] = ZeroDivisionError

    def mix(self, problem: merging.Problem) -> merging.Merge:
        raise self.error("nothing to divide by")


@pytest.mark.parametrize(("error", "state"), [(ZeroDivisionError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_a_run_without_a_result_has_an_end(
    error: type[BaseException], state: str, pool: ModelPool, runs: list[Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bad, "error", error)
    with pytest.raises(MergingError):
        merging.merge(pool, Bad(), sinks=Noted)
    (end,) = runs[0].ends
    assert end.state == state
    assert not end.report
    assert ("nothing to divide by" in end.why) is (state == "failed")


def test_events_come_from_the_driver_alone(pool: ModelPool, tmp_path: Path, runs: list[Notes]) -> None:
    made = plan(pool, "greedy", task=tiny_task())
    for count in (0, 3):
        crew = in_turns(InTurns(count), tmp_path / "files") if count else None
        with Followers([Noted()], SinkRun(name="run"), Heard()) as followers:
            log = followers.log(Journal(None))
            if crew is None:
                execute(followers, Session.open(made, log, observers=followers.observers))
            else:
                with crew as own:
                    execute(followers, Session.open(made, log, observers=followers.observers, crew=own))
    assert runs[0].told == runs[1].told
    assert len(runs) == 2


def execute(followers: Followers, session: Session) -> None:
    from merging.running.execution import Execution

    assert session.evaluator is not None
    session.evaluator.remembered = None  # every outcome is made
    Execution(followers.follow(session)).execute()


@pytest.mark.parametrize("runs_of", [merging.merge, merging.benchmark], ids=lambda function: function.__name__)
def test_a_sink_that_cannot_work_is_said_before_any_work(runs_of: Callable[..., Any], pool: ModelPool) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard comes with dev-full")
    with pytest.raises(OptionError, match="give `output`, or tensorboard:folder=DIR"):
        runs_of(pool, "greedy", task=tiny_task(), sinks="tensorboard")


@dataclass(frozen=True)
class Lacking(Noted):
    """Needs what nobody has."""

    name: ClassVar[str] = "lacking"
    packages: ClassVar[tuple[str, ...]] = ("no_such_package",)
    brought_by: ClassVar[str] = "merging[tracking]"


WRONG: list[tuple[Any, type[MergingError], str]] = [
    (Lacking(), RequirementError, r"sink 'lacking' needs no_such_package; install it with: pip install 'merging\["),
    ("tensorbord", UnknownNameError, "did you mean 'tensorboard'"),
    ("tensorboard:foldr=x", UnknownNameError, "did you mean 'folder'"),
    ("tensorboard:folder", OptionError, "must be NAME:OPTION=VALUE,…, such as 'tensorboard:folder=tb'"),
    ("tensorboard:folder=a,folder=b", OptionError, "says folder twice"),
    (["tensorboard", "tensorboard"], OptionError, "twice with the same options"),
    (3, OptionError, "must be a Sink"),
    (Sink, OptionError, "is an interface"),
]


@pytest.mark.parametrize(("given", "error", "said"), WRONG, ids=[str(given) for given, *_ in WRONG])
def test_what_is_no_sink_is_refused(given: Any, error: type[MergingError], said: str) -> None:
    if isinstance(given, list):
        pytest.importorskip("tensorboard", reason="tensorboard comes with dev-full")
    with pytest.raises(error, match=said):
        Settings.of({"sinks": given})


def test_sinks_may_be_given_in_many_ways() -> None:
    pytest.importorskip("tensorboard", reason="tensorboard comes with dev-full")
    assert Settings.of({"sinks": "tensorboard:folder=a b, c"}).watched.sinks == (merging.TensorBoard(folder="a b, c"),)
    assert Settings.of({"sinks": ["tensorboard", merging.TensorBoard(folder="x")]}).watched.sinks[1].folder == "x"  # type: ignore[attr-defined]
    assert Settings.of({"sinks": merging.TensorBoard}).plain()["sinks"] == [{"name": "tensorboard", "folder": None}]
    assert Settings.of({"sinks": "none"}).watched.sinks == ()


MINE = """
from dataclasses import dataclass
import merging
from merging.plugins.registry import sinks

@sinks.register("mine")
@dataclass(frozen=True)
class Mine(merging.Sink):
    \"\"\"Says when it ends.\"\"\"
    packages = PACKAGES

    word: str = merging.option("ended", "what it says")

    def begin(self, run):
        return Ends(self.word, run)

class Ends(merging.SinkWriter):
    def __init__(self, word, run):
        self.word, self.run = word, run

    def end(self, end):
        with open(self.run.folder / "told.txt", "a") as file:
            print(self.word, end.state, self.run.resumed, file=file)
"""


def test_a_sink_on_the_command_line(merge: Merge, tiny: list[str]) -> None:
    Path("mine.py").write_text(MINE.replace("PACKAGES", "()"), encoding="utf-8")
    broken = MINE.replace("PACKAGES", "('no_such_package',)").replace('"mine"', '"broken"')
    Path("broken.py").write_text(broken, encoding="utf-8")
    run = [*tiny, "--strategy", "greedy", "--no-tests"]
    done = merge(*run, "--plugin", "broken.py", "--sink", "broken", "--output", "lost")
    assert (done.code, Path("lost").exists()) == (2, False)
    assert "error: sink 'broken' needs no_such_package\n" in done.err
    mine = ["--plugin", "mine.py", "--sink", "mine:word=done"]
    assert merge(*run, *mine, "--max-evaluations", "6", "--output", "run").code == 0
    go_on = ["run", "--resume", "run", "--trust-code", "--max-evaluations"]
    assert merge(*go_on, "7").code == 0  # the same sinks again
    assert merge(*go_on, "8", "--sink", "none").code == 0
    assert merge(*go_on, "9", "--sink", "mine").code == 0
    lines = ["done limit False", "done limit True", "ended limit True"]
    assert Path("run", "told.txt").read_text(encoding="utf-8").splitlines() == lines
    assert "sinks" not in json.loads(Path("run", "report.json").read_bytes())

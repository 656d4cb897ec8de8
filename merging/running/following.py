"""The sinks of a run: told what its journal is told, each on a thread of its own; what fails is left out."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from merging.errors import InterruptedRunError, Stopped
from merging.plugins.progress import Progress, Silent
from merging.plugins.sink import Sink, SinkEnd, SinkEvent, SinkRun, begun
from merging.plugins.task import HELD_OUT
from merging.plugins.user_code import failure_of, named, running
from merging.running.found import Found
from merging.running.session import Session
from merging.storage.journal import ASIDE, plain
from merging.storage.result import result_files
from merging.values.answer import answer
from merging.values.outcome import Decision, Meter, Outcome
from merging.values.recipe import Merge, Recipe
from merging.values.report import Report
from merging.values.states import ended

if TYPE_CHECKING:
    from merging.evaluation.ledger import Ledger, Log, Observer

_QUICKLY = 5.0
"""Seconds that sinks have to end where the user has asked twice to quit."""


class Followers:
    """The sinks of one run. As a context it begins with them and, however the run ends, ends them.

    Args:
        sinks: who is told; none: nothing is done, and nothing costs anything.
        run: what is followed.
        progress: told in a line which sink is left out, and why.

    Attributes:
        end: what sinks are told at the end; where nobody has set it, the run has failed or was stopped.
    """

    def __init__(self, sinks: Sequence[Sink], run: SinkRun, progress: Progress) -> None:
        self._progress = progress
        self._followers = [_Follower(sink, run) for sink in sinks]
        self._log: Followed | None = None
        self.end: SinkEnd | None = None

    def log(self, journal: Log) -> Log:
        """The journal, or one around it that tells sinks what it is told."""
        if self._followers:
            self._log = Followed(journal, self)
        return self._log or journal

    def follow(self, session: Session) -> Session:
        """The session; what it costs is told with each event from now on."""
        if self._log is not None and session.evaluator is not None:
            self._log.ledger = session.evaluator.ledger
        return session

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who watches the ledger for them: nobody where there are no sinks."""
        return () if self._log is None else (self._log,)

    def tell(self, event: SinkEvent) -> None:
        """Tells every sink that is still there."""
        for follower in self._there():
            follower.told.put(event)

    def __enter__(self) -> Followers:
        for follower in self._followers:
            follower.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._followers:
            return
        end = self.end if self.end is not None and error is None else _ended_by(error)
        for follower in self._there():
            follower.moved = time.monotonic()
            follower.told.put(end)
        try:
            self._wait(_QUICKLY if isinstance(error, KeyboardInterrupt) else None)
        except KeyboardInterrupt:  # all that the run has made is written
            for follower in self._followers:
                follower.leave("was still at work when the wait for it was interrupted")
        self._there()

    def _wait(self, most: float | None) -> None:
        """Waits until each sink has ended, or does not get on any more."""
        for follower in self._followers:
            patience = follower.sink.patience if most is None else min(most, follower.sink.patience)
            while not follower.ended.wait(min(0.2, patience)) and not follower.failed:
                if time.monotonic() - follower.moved > patience:
                    follower.leave(f"has not moved for {patience:g} s")

    def _there(self) -> Iterator[_Follower]:
        """Those that have not failed; of the others it is said once."""
        there = []
        for follower in self._followers:
            if follower.failed and not follower.said:
                follower.said = True
                _say(self._progress, f"warning: {follower.failed}; it is left out, and the run goes on without it")
            elif not follower.failed:
                there.append(follower)
        return iter(there)


class _Follower:
    """One sink with one run, on a thread of its own."""

    def __init__(self, sink: Sink, run: SinkRun) -> None:
        self.sink, self._run = sink, run
        self.told: queue.SimpleQueue[SinkEvent | SinkEnd] = queue.SimpleQueue()
        self.failed, self.said, self.moved = "", False, time.monotonic()
        self.ended = threading.Event()  # a join that is interrupted takes the thread for ended
        self.thread = threading.Thread(target=self._work, name=named("sink", sink), daemon=True)

    def leave(self, why: str) -> None:
        """Goes on without it: it may hang for ever."""
        if not self.ended.is_set() and not self.failed:
            self.failed = f"{named('sink', self.sink)} {why}"

    def _work(self) -> None:
        try:
            writer = begun(self.sink, self._run)
            while not self.failed:
                told = self.told.get()
                self.moved = time.monotonic()
                if isinstance(told, SinkEnd):
                    writer.end(told)
                    return
                writer.event(told)
        except BaseException as error:  # somebody's code may raise anything; sys.exit here would end nothing
            self.failed = self.failed or failure_of(named("sink", self.sink), self.sink, error)
        finally:
            self.ended.set()


class Followed:
    """A journal that tells sinks what it was told, once that is kept.

    Attributes:
        ledger: counts what the run costs, once there is one.
    """

    def __init__(self, journal: Log, followers: Followers) -> None:
        self._journal, self._followers = journal, followers
        self.ledger: Ledger | None = None
        self._strategy = ""
        self._best: float | None = None
        self._tested: set[str] = set()

    def write(self, event: str, **facts: Any) -> None:
        """Keeps an event, then tells it."""
        again = self._journal.replaying and event not in ASIDE
        self._journal.write(event, **facts)
        evaluations, passes = self._spent(event, facts)
        if event == "strategy":
            self._strategy, self._best = str(facts["name"]), None
        self._followers.tell(
            SinkEvent(
                name=event,
                facts=plain(facts),
                strategy=self._strategy,
                best=self._best,
                evaluations=evaluations,
                forward_equivalents=passes,
                again=again,
            )
        )

    def saw(self, outcome: Outcome, meter: Meter) -> None:
        """A strategy has been told a score, which may have been known before."""
        del meter
        self._best = outcome.score if self._best is None else max(self._best, outcome.score)

    def _spent(self, event: str, facts: Mapping[str, Any]) -> tuple[int, float]:
        """Evaluations and passes with this event, which the ledger counts a moment later."""
        total = self.ledger.total if self.ledger is not None else Meter()
        own = event == "evaluation" and facts["split"] == HELD_OUT and not facts.get("record")
        if not own and event != "test":
            return total.evaluations, total.forward_equivalents
        new = facts["key"] not in self._tested
        if own:
            self._best = max(facts["score"], facts["score"] if self._best is None else self._best)
        else:
            self._tested.add(facts["key"])
        return total.evaluations + new, total.forward_equivalents + facts["passes"]

    @property
    def replaying(self) -> bool:
        """Whether old events are left."""
        return self._journal.replaying

    def tested(self, key: str) -> tuple[Decision, float] | None:
        """The threshold test that the journal knows."""
        return self._journal.tested(key)

    def replay(self, key: str, split: str) -> Outcome | None:
        """The outcome that the journal has next."""
        return self._journal.replay(key, split)

    def peek(self, key: str) -> Outcome | None:
        """The outcome that the journal knows by its key."""
        return self._journal.peek(key)


def check(sinks: Sequence[Sink], run: SinkRun) -> None:
    """Says before any work what would keep sinks from theirs.

    Raises:
        MergingError: something is missing.
    """
    for sink in sinks:
        with running(named("sink", sink), sink):
            sink.check(run)


def end_of(found: Found, report: Report, folder: Path | None) -> SinkEnd:
    """The end of a run that has a result.

    Args:
        found: what it has found.
        report: its report.
        folder: folder of the result, or None.
    """
    files, model = ((), ()) if folder is None else result_files(folder)
    told = answer(report) if report.verdicts else None
    return SinkEnd(
        state=str(found.state),
        why=ended(found.state, found.limit),
        scores={split: outcome.score for split, (outcome, *_) in found.seen(found.saved).items()},
        verdict="" if told is None else told.headline,
        answer={} if told is None else told.to_json(),
        report=report.to_json(),
        coefficients=coefficients_of(found.merge),
        files=files,
        model=model,
    )


def coefficients_of(merged: Merge) -> dict[str, Any]:
    """A recipe's coefficients as JSON-ready values, a row an ingredient; nothing of other merges."""
    if not isinstance(merged, Recipe):
        return {}
    columns = list(merged.partition.effective)
    return {
        "ingredients": [ingredient.name for ingredient in merged.ingredients],
        "components": [merged.partition.names[column] for column in columns],
        "values": merged.coefficients[:, columns].tolist(),
    }


def _ended_by(error: BaseException | None) -> SinkEnd:
    """The end of a run that has no result."""
    if isinstance(error, Stopped):
        return SinkEnd(state=str(error.reason), why=str(error))
    stopped = isinstance(error, InterruptedRunError | KeyboardInterrupt)
    return SinkEnd(state="interrupted" if stopped else "failed", why=str(error or "") or type(error).__name__)


def _say(progress: Progress, text: str) -> None:
    """Says it where somebody listens; else where programs say such things."""
    with contextlib.suppress(Exception):  # somebody's progress
        if not isinstance(progress, Silent) or type(progress).say is not Silent.say:
            progress.say(text)
            return
    logging.getLogger("merging").warning("%s", text.removeprefix("warning: "))

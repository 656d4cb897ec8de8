"""``events.jsonl``: every evaluation and decision of a run, one line each, appended as it happens.

A resumed run is the same deterministic search again: while old events last, each new one must equal the next old one,
and evaluations are taken from there instead of being made; after that the file grows on.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from merging.errors import DAMAGED, FolderError, near_path
from merging.storage.atomic import refusals, sync
from merging.storage.lock import Lock
from merging.values.formats import JOURNAL, check_format, each_once
from merging.values.outcome import Decision, Outcome
from merging.values.wording import beginning

FILE = "events.jsonl"
_TIMES = ("seconds", "time", "format")
"""Fields that a resumed run need not have as they were then."""
ASIDE = ("stopped", "finished")
"""Events that mark how a session ended; they are no part of the search and are not compared.

What follows ``stopped`` only rounded an unfinished run off (the test sets of the best so far): a resumed run drops it.
"""
_OFTEN = ("evaluation", "test", "decision")
"""Events that a search writes in quick succession: they are on the disk a moment later, others (and what was accepted)
before the search goes on."""
_LATER = 0.5
"""Seconds after which an event is on the disk at the latest, the sync itself apart."""


class Journal:
    """The journal of one run, and the lock of its folder.

    Args:
        path: the file, or None to keep nothing (in memory, for the Python API without an output folder).
        resume: replay what is there; otherwise the file must be new.
        lock: the folder's lock, where it is held already: then an earlier journal is begun anew. The journal lets go
            of it.

    Raises:
        FolderError: another process writes to the folder, or a resumed file cannot be read.
    """

    def __init__(self, path: Path | None, *, resume: bool = False, lock: Lock | None = None) -> None:
        self.path = path
        self._old: deque[dict[str, Any]] = deque()
        self._line = 0
        self._file: IO[bytes] | None = None
        self._syncing: _Syncing | None = None
        if path is None:
            return
        self._lock = lock or Lock(path.parent)
        try:
            self._open(path, "r+b" if resume else "xb" if lock is None else "w+b", replay=resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, path: Path, mode: str, *, replay: bool) -> None:
        if path.is_symlink():
            raise FolderError(f"{path} is a link, and nothing is written through it; copy the file there, or remove it")
        with refusals(f"cannot open {path}"):
            # unbuffered: what could not be written is not tried again
            self._file = open(path, mode, buffering=0)  # noqa: SIM115 (open as long as the run)
        if replay:
            events, whole = _read(self._file.read(), path, until="stopped")
            self._old.extend(event for event in events if event["event"] not in ASIDE)
            self._file.truncate(whole)  # a torn last line is dropped
            self._file.seek(whole)
        sync(path.absolute().parent)
        self._syncing = _Syncing(self._file)

    @property
    def request(self) -> dict[str, Any] | None:
        """The request that the resumed run began with; None once the first event has been replayed, or without any."""
        request: dict[str, Any] | None = self._old[0].get("request") if self._old else None
        return request

    def head(self) -> dict[str, Any] | None:
        """The next event of the run that is resumed; None when they are used up."""
        return self._old[0] if self._old else None

    def take(self) -> list[dict[str, Any]]:
        """The old events, in order; nothing is compared with them from now on."""
        old = list(self._old)
        self._old.clear()
        return old

    def write(self, event: str, **facts: Any) -> None:
        """Appends an event; during a replay, checks that it is the one that was written then.

        It is on the disk when this returns, or, of evaluations and refused mixes, at most about a second later.

        Raises:
            FolderError: the search went another way than the journal says, or the disk is full.
        """
        line = plain({"event": event, **facts})
        if self._old and event not in ASIDE:
            old = self._old.popleft()
            self._line += 1
            if _timeless(old) != _timeless(line):
                raise FolderError(
                    f"{self.path}: this run goes another way than the journal from event {self._line} on: "
                    f"{_short(old)} then, {_short(line)} now; start a new run"
                )
        elif self._file is not None:
            kept = "; what was found so far is kept there: free some space and go on with it"
            if self._file.tell() == 0:
                line = {"event": event, "format": JOURNAL, **line}
            with refusals(f"cannot write {self.path}", kept):
                self._append(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")
                if self._syncing is not None:
                    self._syncing.soon() if event in _OFTEN and not line.get("accepted") else self._syncing.now()

    @staticmethod
    def _append(file: IO[bytes], text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[file.write(left) :]

    def replay(self, key: str, split: str) -> Outcome | None:
        """Looks up the outcome of the evaluation that is now due; None when the old events are used up."""
        old = self.head()
        if old is None or old["event"] != "evaluation" or (old["key"], old["split"]) != (key, split):
            return None
        return Outcome.from_json(old)

    @property
    def replaying(self) -> bool:
        """Whether old events are left."""
        return bool(self._old)

    def peek(self, key: str) -> Outcome | None:
        """Nothing: events are gone through in their order."""
        del key
        return None

    def tested(self, key: str) -> tuple[Decision, float] | None:
        """Looks up the threshold test that is now due, and its seconds; None where it is not the next event.

        One that saw all samples was written as the evaluation that it is; its outcome counts.
        """
        old = self.head()
        if old is None or old.get("key") != key:
            return None
        if old["event"] == "evaluation" and not old.get("record") and old["split"] == "held-out":
            outcome = Outcome.from_json(old)
            return Decision(True, outcome.samples, outcome=outcome), outcome.seconds
        return (Decision.from_json(old), float(old["seconds"])) if old["event"] == "test" else None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            if self._syncing is not None:
                self._syncing.end()
        finally:
            self._file.close()
            self._file = None
            self._lock.release()


class _Syncing:
    """Puts a file's content on the disk, at once or beside the search.

    Args:
        file: stays open until :meth:`end`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None
        self._due, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """Has the file synced in a moment, on a thread of its own: a search does not wait for the disk."""
        self._due.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        self._check()

    def now(self) -> None:
        """Syncs the file before this returns."""
        os.fsync(self._file.fileno())
        self._due.clear()
        self._check()

    def end(self) -> None:
        """Ends the thread and syncs the file for the last time."""
        self._ended.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        self.now()

    def _work(self) -> None:
        while not self._ended.is_set():
            self._due.wait()
            self._ended.wait(_LATER)
            self._due.clear()  # before: what is written meanwhile is due again
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self._error = error
                return

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as a journal holds them: what JSON gives back."""
    told: dict[str, Any] = json.loads(json.dumps(facts, allow_nan=False, default=_number))
    return told


def read_header(path: Path) -> dict[str, Any]:
    """Reads the first event of a journal: what the run was asked to do.

    Raises:
        FolderError: there is no journal, or it does not begin with a run.
    """
    if not path.is_file():
        raise FolderError(f"nothing to resume: there is no {path}{near_path(path.parent)}")
    events, _ = _read(path.read_bytes(), path)
    if not events or events[0]["event"] != "run":
        raise FolderError(f"{path} does not begin with a run; it cannot be resumed")
    return events[0]


def read_events(content: bytes, path: Path, until: str = "") -> list[dict[str, Any]]:
    """Reads the events of a journal, of which only the last line may be torn.

    Args:
        content: the file's bytes.
        path: the file, for messages.
        until: the first event of that name, and what follows it, is left out.

    Raises:
        FolderError: a line is damaged.
    """
    return _read(content, path, until)[0]


def _read(content: bytes, path: Path, until: str = "") -> tuple[list[dict[str, Any]], int]:
    """Reads the events before the first one called ``until``, and their bytes; only the last line may be torn."""
    events: list[dict[str, Any]] = []
    whole = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            event = json.loads(line, parse_float=_finite, parse_constant=_finite, object_pairs_hook=each_once)
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("not an event")
            if event["event"] == "evaluation":
                texts = isinstance(event["key"], str) and isinstance(event["split"], str)
                if not (texts and math.isfinite(Outcome.from_json(event).score)):
                    raise ValueError("not an evaluation")
            elif event["event"] == "test" and not (isinstance(event["key"], str) and float(event["seconds"]) >= 0):
                raise ValueError("not a test")
            elif event["event"] == "test":
                Decision.from_json(event)
        except DAMAGED:
            raise FolderError(f"{path}: line {number} is damaged; only the last line may be; start a new run") from None
        if number == 1:
            _check(event, path)
        if event["event"] == until:
            break
        events.append(event)
        whole += len(line) + 1
    return events, whole


def _check(event: Mapping[str, Any], path: Path) -> None:
    """Checks the format that a journal begins with; before 1.0 none stood there."""
    try:
        check_format(event.get("format", JOURNAL), JOURNAL)
    except ValueError as error:
        raise FolderError(f"{path}: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is never written")
    return value


def _number(value: Any) -> Any:
    """Turns NumPy's and torch's scalars into Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written to the journal")


def _timeless(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in _TIMES}


def _short(event: dict[str, Any]) -> str:
    return beginning(json.dumps(_timeless(event)), 120)

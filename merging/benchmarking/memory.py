"""The memory of a benchmark: every score that was measured, on disk, shared by all its methods.

A run's journal is an order of events that a resumed run must follow. Here the order does not matter: what has been
scored once, by whichever method, in whichever session, is known.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from merging.errors import FolderError
from merging.plugins.task import HELD_OUT
from merging.storage.journal import Journal
from merging.storage.lock import Lock
from merging.values.outcome import Decision, Outcome

FILE = "evaluations.jsonl"
BEGIN = "benchmark"


class Memory:
    """A log of evaluations that answers by key.

    Args:
        path: the file, which is made or read; None keeps everything in this process alone.
        lock: the folder's lock, where it is held already.

    Attributes:
        header: what the file's first event says that was measured, or None in a new file.

    Raises:
        FolderError: another process has it open, or it is no benchmark's.
    """

    def __init__(self, path: Path | None, lock: Lock | None = None) -> None:
        self._journal = Journal(path, resume=path is not None and path.exists(), lock=lock)
        old = self._journal.take()
        self.header = old[0] if old else None
        if self.header is not None and self.header["event"] != BEGIN:
            with self._journal:  # lets go of the folder
                raise FolderError(f"{path} does not begin with a benchmark; choose another `output`")
        self._known = {event["key"]: Outcome.from_json(event) for event in old if event["event"] == "evaluation"}
        self._held_out = {e["key"] for e in old if e.get("split") == HELD_OUT and not e.get("record")}

    @property
    def evaluations(self) -> int:
        """Distinct models that were scored on the held-out data, by all methods together."""
        return len(self._held_out)

    def replay(self, key: str, split: str) -> Outcome | None:
        """The outcome that is known, whoever asked for it first."""
        del split  # the key holds the data's fingerprint
        return self._known.get(key)

    def peek(self, key: str) -> Outcome | None:
        """The same: there is no order."""
        return self._known.get(key)

    @property
    def replaying(self) -> bool:
        """Never: what is known has no order here."""
        return False

    def tested(self, key: str) -> tuple[Decision, float] | None:
        """Knows no tests: what one costs depends on what its method has asked for before, and is the method's own."""
        del key
        return None

    def write(self, event: str, **facts: Any) -> None:
        """Keeps evaluations that are new, and what was begun; decisions are kept with the method that made them."""
        if event == "evaluation":
            if facts["split"] == HELD_OUT and not facts.get("record"):
                self._held_out.add(facts["key"])
            if facts["key"] in self._known:
                return
            self._known[facts["key"]] = Outcome.from_json(facts)
        elif event != BEGIN:
            return
        self._journal.write(event, **facts)

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

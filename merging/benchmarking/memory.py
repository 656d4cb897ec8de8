"""The memory of a benchmark: every score that was measured, on disk, shared by all its methods.

A run's journal is an order of events that a resumed run must follow. Here the order does not matter: what has been
scored once, by whichever method, in whichever session, is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.errors import FolderError
from merging.plugins.task import HELD_OUT
from merging.storage.journal import Journal
from merging.storage.lock import Lock
from merging.values.outcome import Outcome

FILE = "evaluations.jsonl"
BEGIN = "benchmark"


class Memory(Journal):
    """A journal that answers by key.

    Args:
        path: the file, which is made or read; None keeps everything in this process alone.
        lock: of the folder, where it is held already.

    Attributes:
        header: what the file's first event says that was measured, or None in a new file.
        seconds: what passes over the held-out data took in this session.

    Raises:
        FolderError: another process has it open, or it is no benchmark's.
    """

    def __init__(self, path: Path | None, lock: Lock | None = None) -> None:
        super().__init__(path, resume=path is not None and path.exists(), lock=lock)
        self.header = self.head()
        if self.header is not None and self.header["event"] != BEGIN:
            self.__exit__(None, None, None)
            raise FolderError(f"{path} does not begin with a benchmark; choose another `output`")
        self._known = {old["key"]: Outcome.from_json(old) for old in self._old if old["event"] == "evaluation"}
        self._held_out = {old["key"] for old in self._old if old.get("split") == HELD_OUT and not old.get("record")}
        self._old.clear()
        self._apart = False
        self.seconds = 0.0

    @property
    def evaluations(self) -> int:
        """Distinct models that were scored on the held-out data, by all methods together."""
        return len(self._held_out)

    def replay(self, key: str, split: str) -> Outcome | None:
        """The outcome that is known, whoever asked for it first."""
        del split  # the key holds the data's fingerprint
        return None if self._apart else self._known.get(key)

    def __enter__(self) -> Memory:
        return self

    def write(self, event: str, **facts: Any) -> None:
        """Keeps evaluations that are new, and what was begun; decisions are kept with the method that made them."""
        if event == "evaluation":
            known = facts["key"] in self._known
            if facts["split"] == HELD_OUT and not facts.get("record"):
                self._held_out.add(facts["key"])
                self.seconds += facts["seconds"] if self._apart or not known else 0.0
            if known:
                return
            self._known[facts["key"]] = Outcome.from_json(facts)
        elif event != BEGIN:
            return
        super().write(event, **facts)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Answers nothing for a while: for passes that are made anyway, because their logits are wanted."""
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before

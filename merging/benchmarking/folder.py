"""A benchmark's folder: one memory, one file for each finished run of a method, and the results."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.benchmarking.memory import BEGIN, FILE, Memory
from merging.benchmarking.runs import Entry, MethodRun, read_run
from merging.errors import FolderError
from merging.storage.journal import holding

if TYPE_CHECKING:
    from merging.benchmarking.results import Benchmark
    from merging.forward.numerics import Numerics

METHODS = "methods"
RESULT = "benchmark.json"


class Folder:
    """Where a benchmark is kept while it runs, and goes on from.

    Args:
        path: made when it is claimed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, *, overwrite: bool) -> None:
        """Says, before any work, whether the folder can be used; changes nothing.

        Raises:
            FolderError: it is a file, holds something else than a benchmark, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"--output {self.path} is a file; name a folder")
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / FILE).is_file():
            more = "; --overwrite replaces an earlier benchmark only" if overwrite else ""
            raise FolderError(f"{self.path} holds other files and no benchmark; choose another --output{more}")
        parent = self.path
        while not parent.exists():
            parent = parent.parent
        if not os.access(parent, os.W_OK | os.X_OK):
            raise FolderError(f"cannot write to {parent}; choose another --output")

    def numerics(self) -> Numerics | None:
        """What an earlier session has measured (``tune``): measuring again could find something else."""
        from merging.forward.numerics import Numerics

        if not (self.path / FILE).is_file():
            return None
        with Memory(self.path / FILE) as memory:
            kept = (memory.header or {}).get("numerics")
        try:
            return Numerics(**kept) if kept else None
        except TypeError:
            raise FolderError(f"{self.path / FILE}: its numerics are damaged; begin anew with --overwrite") from None

    def claim(self, header: Mapping[str, Any], *, overwrite: bool) -> Memory:
        """Opens the memory; what is known there may be used, because it was measured under the same conditions.

        Raises:
            FolderError: another process is writing there, or the conditions differ.
        """
        memory = self.path / FILE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite and memory.is_file():
                with holding(memory):
                    shutil.rmtree(self.path / METHODS, ignore_errors=True)
                    memory.unlink()
        except FolderError:
            raise
        except OSError as error:
            raise FolderError(f"cannot write to {self.path}: {error.strerror}") from None
        found = Memory(memory)
        if found.header is None:
            found.write(BEGIN, **header)
            return found
        different = [_change(key, found.header.get(key), value) for key, value in header.items()
                     if found.header.get(key) != value]  # fmt: skip
        if different:
            found.__exit__(None, None, None)
            raise FolderError(
                f"{self.path} holds a benchmark under other conditions: {'; '.join(different)}; choose another "
                "--output, or begin anew with --overwrite"
            )
        return found

    def kept(self, entry: Entry) -> MethodRun | None:
        """The finished run of an earlier session, if it is of this very entry."""
        run = read_run(self._file(entry))
        return run if run is not None and run.status == "finished" and run.entry == entry.to_json() else None

    def keep(self, entry: Entry, run: MethodRun) -> None:
        """Writes a run, whole or not at all."""
        self._replace(self._file(entry), json.dumps(run.to_json(), ensure_ascii=False, allow_nan=False))

    def write(self, found: Benchmark) -> None:
        """Writes ``benchmark.json``, whole or not at all; what is drawn from it is written by the caller."""
        self._replace(self.path / RESULT, found.dumps())

    def _file(self, entry: Entry) -> Path:
        return self.path / METHODS / (re.sub(r"[^\w.+-]+", "_", entry.name) + ".json")

    def _replace(self, path: Path, text: str) -> None:
        """Writes aside and renames.

        Raises:
            FolderError: the disk is full, or the folder cannot be written.
        """
        aside = path.with_name(f".{path.name}-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text)
            os.replace(aside, path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise FolderError(f"cannot write {path}: {error.strerror}; free some space, then run it again") from None


def _change(key: str, old: Any, new: Any) -> str:
    """What differs, in words: of several entries (models, sets, versions) only those that do."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [str(name) for name in {**old, **new} if old.get(name) != new.get(name)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"other {key} ({', '.join(names[:3])}{more})"
    return f"{key} was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "…"

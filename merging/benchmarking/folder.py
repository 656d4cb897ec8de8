"""A benchmark's folder: one memory, one file for each finished run of a method, and the results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.benchmarking.memory import BEGIN, FILE, Memory
from merging.benchmarking.runs import Entry, MethodRun, read_run
from merging.errors import FolderError
from merging.storage import atomic
from merging.storage.folder import check_place
from merging.storage.lock import Lock, is_hidden
from merging.storage.result import lies_in
from merging.values.states import MethodState
from merging.values.wording import beginning, some

if TYPE_CHECKING:
    from merging.benchmarking.results import Benchmark
    from merging.forward.numerics import Numerics

METHODS = "methods"
RESULT = "benchmark.json"
PICTURES = "pictures"
POOL = "pool.csv"
"""The models of the pool, a line each; there where they were scored."""
DOCUMENTS = (*(f"benchmark.{form}" for form in ("html", "md", "tex", "csv")), POOL)
"""Files that describe the results and show the pictures."""
APART = re.compile(r"(benchmark|pool)-\d+\.csv")
"""Tables of results that stand apart: benchmark-2.csv, pool-2.csv, …"""
PICTURE = re.compile(r"(\d+-)?(forest|scatter|search|coefficients-.+)\.(png|svg)")
"""Pictures that a rendering makes, and may remove when a later one does not; of what stands apart 2-scatter, …"""


class Folder:
    """The folder of a benchmark, which keeps it while it runs, and from which an interrupted one goes on.

    Args:
        path: the folder, which is made when it is claimed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, *, overwrite: bool) -> None:
        """Says, before any work, whether the folder can be used; changes nothing.

        Raises:
            FolderError: it is a file, holds something else than a benchmark, or cannot be written.
        """
        check_place(self.path)
        there = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        if any(not is_hidden(name) for name in there) and FILE not in there:
            more = "; `overwrite` replaces an earlier benchmark only" if overwrite else ""
            raise FolderError(f"{self.path} holds other files and no benchmark; choose another `output`{more}")

    def numerics(self) -> Numerics | None:
        """Reads how an earlier session made its passes: a newer rule, or measuring again, could say otherwise."""
        from merging.forward.numerics import Numerics

        if not (self.path / FILE).is_file():
            return None
        with Memory(self.path / FILE) as memory:
            kept = (memory.header or {}).get("numerics")
        try:
            return Numerics(**kept) if kept else None
        except TypeError:
            raise FolderError(f"{self.path / FILE}: its numerics are damaged; begin anew with `overwrite`") from None

    def claim(self, header: Mapping[str, Any], *, overwrite: bool) -> Memory:
        """Opens the memory; what is known there may be used, because it was measured under the same conditions.

        Raises:
            FolderError: another process is writing there, or the conditions differ.
        """
        with atomic.refusals(f"cannot write to {self.path}"):
            atomic.make_folder(self.path)
            lock = Lock(self.path)
            try:
                self.check(overwrite=overwrite)
                if overwrite:  # the memory last: as long as it is there, this is a benchmark's folder
                    withdraw(self.path)
                    atomic.remove(self.path / RESULT)
                    atomic.remove(self.path / METHODS)
                    atomic.write(self.path / FILE, b"")
            except OSError:
                lock.release()
                raise
        found = Memory(self.path / FILE, lock)
        if found.header is None:
            found.write(BEGIN, **header)
            return found
        different = [
            _change(key, found.header.get(key), value)
            for key, value in header.items()
            if found.header.get(key) != value
        ]
        if different:
            found.__exit__(None, None, None)
            raise FolderError(
                f"{self.path} holds a benchmark under other conditions: {'; '.join(different)}; choose another "
                "`output`, or begin anew with `overwrite`"
            )
        return found

    def kept(self, entry: Entry) -> MethodRun | None:
        """The finished run of an earlier session, if it is of this very entry."""
        run = read_run(self._file(entry))
        return run if run is not None and run.status is MethodState.FINISHED and run.entry == entry.to_json() else None

    def keep(self, entry: Entry, run: MethodRun) -> None:
        """Writes a run, whole or not at all."""
        self._replace(self._file(entry), json.dumps(run.to_json(), ensure_ascii=False, allow_nan=False))

    def write(self, found: Benchmark) -> None:
        """Writes ``benchmark.json``, whole or not at all; what is drawn from it is written by the caller.

        Documents and pictures of other results are removed first.
        """
        self._replace(self.path / RESULT, found.dumps())

    def _file(self, entry: Entry) -> Path:
        return self.path / METHODS / f"{entry.name}.json"

    def _replace(self, path: Path, text: str) -> None:
        """Writes aside and renames.

        Raises:
            FolderError: the disk is full, or the folder cannot be written.
        """
        with atomic.refusals(f"cannot write {path}", "; free some space, then run it again"):
            atomic.make_folder(path.parent)
            with atomic.replacing(path) as aside:
                atomic.put(aside, text)
                if path.name == RESULT and not (path.is_file() and path.read_bytes() == text.encode()):
                    withdraw(self.path)


def withdraw(folder: Path) -> None:
    """Removes what was drawn from the results, the documents first, before others take the results' place."""
    atomic.remove(*(folder / name for name in DOCUMENTS))
    atomic.remove(*(path for path in folder.iterdir() if APART.fullmatch(path.name)))
    pictures = folder / PICTURES
    if lies_in(folder, PICTURES) and pictures.is_dir():
        atomic.remove(*(path for path in pictures.iterdir() if PICTURE.fullmatch(path.name)))


def _change(key: str, old: Any, new: Any) -> str:
    """What differs, in words: of several entries (models, sets, versions) only those that do."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [str(name) for name in {**old, **new} if old.get(name) != new.get(name)]
        return f"other {key} ({some(names, 3)})"
    was, now = (beginning(json.dumps(value), 120) for value in (old, new))
    return f"{key} was {was}, is {now}"

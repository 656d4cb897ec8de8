"""The user's cache: small things that take long to find, kept between commands, shared by processes.

The folder is ``$MERGING_CACHE``, else ``~/.cache/merging``. Deleting it costs time, nothing else. An entry is a file
with a checksum over its key and its content: one that is cut, changed or somebody else's is none. A folder that cannot
be read or written is no error: nothing is known then, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from merging.errors import OptionError
from merging.storage import atomic
from merging.storage.shards import parse_size

SCORES, HASHES = "scores", "hashes"
KINDS = (SCORES, HASHES)
"""Folders of entries that the limit counts; decoded images are beside them and are not counted."""
PAGES = "pages"
"""Folder of pages that were opened in a browser and written nowhere else; a few, which the limit does not count."""
LIMIT = 1_000_000_000
"""Bytes of entries, where ``MERGING_CACHE_LIMIT`` says nothing else."""
NOWHERE = Path(os.devnull) / "merging"
"""A folder that nobody can read or write."""
_MARK = b"merging-cache/1 "
_FRESH = 3600.0
"""Seconds for which an entry's time of use is not written again, and after which what a killed process left goes."""
_BLOCK = 4096
"""Bytes that a file takes on a disk at least."""


def cache_folder() -> Path:
    """Finds the user's cache: ``MERGING_CACHE``, or ``~/.cache/merging``; :data:`NOWHERE` for who has no home."""
    try:
        return Path(os.environ.get("MERGING_CACHE") or "~/.cache/merging").expanduser()
    except RuntimeError:  # a number that is no user's, as in containers
        return NOWHERE


def remembers() -> bool:
    """Whether scores and content hashes may be kept between commands: ``MERGING_REMEMBER=0`` says no."""
    return os.environ.get("MERGING_REMEMBER", "").strip().lower() not in ("0", "no", "off", "false")


def limit() -> int:
    """Bytes that entries may take: ``MERGING_CACHE_LIMIT``, such as 500MB.

    Raises:
        OptionError: it is no size.
    """
    said = os.environ.get("MERGING_CACHE_LIMIT")
    try:
        return parse_size(said) if said else LIMIT
    except OptionError:
        way = "write it as 500MB or 2GB; MERGING_REMEMBER=0 keeps nothing"
        raise OptionError(f"MERGING_CACHE_LIMIT is '{said}'; {way}") from None


class Shelf:
    """The entries of one kind, by key.

    Args:
        kind: one of :data:`KINDS`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._written = 0

    def place(self, key: str) -> Path:
        """Names the file of an entry.

        Args:
            key: hexadecimal digits, four or more.
        """
        return cache_folder() / self.kind / key[:2] / key[2:]

    def get(self, key: str) -> bytes | None:
        """Gives what was kept under a key; None where there is nothing whole. Using it counts."""
        path = self.place(key)
        try:
            found = content(path.read_bytes(), key)
            if found is not None and time.time() - path.stat().st_mtime > _FRESH:
                with contextlib.suppress(OSError):  # of another user, or a disk that is read only
                    os.utime(path)
        except OSError:
            return None
        return found

    def put(self, key: str, payload: bytes) -> None:
        """Keeps something under a key, whole or not at all; where the disk refuses, it is not kept."""
        path, whole = self.place(key), _MARK + _sum(key, payload) + b"\n" + payload
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.swap(path, whole)
            self._written += max(len(whole), _BLOCK)
        if self._written > limit() // 100:
            self._written = 0
            sweep()

    def drop(self, key: str) -> None:
        """Forgets the entry under a key, if there is one."""
        with contextlib.suppress(OSError):
            self.place(key).unlink()

    def drop_where(self, told: Callable[[bytes], bool]) -> int:
        """Forgets the entries whose content is told apart so; returns how many."""
        dropped = 0
        for path in _files(cache_folder() / self.kind):
            with contextlib.suppress(OSError):
                if told(path.read_bytes()):
                    path.unlink()
                    dropped += 1
        return dropped


def content(whole: bytes, key: str) -> bytes | None:
    """The content of an entry's file; None where it is not what was written under that key."""
    head, newline, payload = whole.partition(b"\n")
    return payload if newline and head == _MARK + _sum(key, payload) else None


def usage() -> dict[str, tuple[int, int]]:
    """Kind → number of entries, and bytes that they take."""
    found = {}
    for kind in KINDS:
        sizes = [size for _, size, _ in _states(cache_folder() / kind)]
        found[kind] = len(sizes), sum(sizes)
    return found


def clear() -> None:
    """Forgets all scores, content hashes and pages; what other commands are writing meanwhile stays.

    Raises:
        OSError: something cannot be removed.
    """
    for kind in (*KINDS, PAGES):
        for home, _, names in os.walk(cache_folder() / kind, topdown=False, onerror=_refuse):
            for name in names:
                if not _is_written(Path(home, name)):
                    Path(home, name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another command has put something there
                Path(home).rmdir()


def sweep(most: int | None = None) -> None:
    """Drops entries that were used longest ago until the rest takes so many bytes; None: the limit."""
    most = limit() if most is None else most
    states = [state for kind in KINDS for state in _states(cache_folder() / kind)]
    excess = sum(size for _, size, _ in states) - most
    for _, size, path in sorted(states):
        stale = path.name.startswith(atomic.LEFTOVER)
        if excess > 0 or stale:
            with contextlib.suppress(OSError):
                path.unlink()
                excess -= size


def _states(folder: Path) -> list[tuple[float, int, Path]]:
    """Time of use, bytes and path of what is kept, and of what a killed process has left; what is written is not."""
    found = []
    for path in _files(folder, hidden=True):
        with contextlib.suppress(OSError):
            state = path.stat()
            if not _is_written(path):
                found.append((state.st_mtime, max(state.st_size, _BLOCK), path))
    return found


def _refuse(error: OSError) -> None:
    """Passes on that a folder cannot be listed, unless there is none."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _is_written(path: Path) -> bool:
    """Whether a file is being written now, as far as its name and its age tell."""
    try:
        return path.name.startswith(atomic.LEFTOVER) and time.time() - path.stat().st_mtime <= _FRESH
    except OSError:
        return False


def _files(folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    for home, _, names in os.walk(folder):
        yield from (Path(home, name) for name in names if hidden or not name.startswith(atomic.LEFTOVER))


def _sum(key: str, payload: bytes) -> bytes:
    return blake3(key.encode() + b"\n" + payload).hexdigest().encode()

"""Content hashes of files, remembered: a file that has not changed since it was read is not read for its hash again.

What says that a file has not changed is its place, device, inode, size, and the times of its last change in content and
in state (ctime), which no program can set. A hash is kept, and used, only where both times are two seconds past: a file
that is written twice within the clock's step would look the same. What can fool it all the same is what changes a file
behind the file system's back, so a hash can be asked for anew (``verify``).
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from merging.storage.user_cache import HASHES, SCORES, Shelf, remembers

SETTLED = 2_000_000_000
"""Nanoseconds for which a file must not have changed before it is read."""
REFUTED = (
    "does not hold what was remembered of it: it was changed and looked unchanged; the content hash and the scores "
    "that were kept for it are dropped"
)
"""Ends the message on a file whose remembered content hash was proved wrong."""
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Remembering:
    """The use that a command makes of what earlier ones have found.

    Attributes:
        remember: whether it is used, and kept.
        verify: whether content hashes are found anew, and compared with those that were kept.
        found: digests of what is in memory, which are found once a command: id → the thing, its digest.
        networks: digests of networks that score sets, which take passes: what they are of → these things, the digest;
            None: they cannot be told.
        refuted: files whose hash was remembered and wrong.
    """

    remember: bool = True
    verify: bool = False
    found: dict[int, tuple[object, str]] = field(default_factory=dict, compare=False, repr=False)
    networks: dict[str, tuple[tuple[object, ...], str | None]] = field(default_factory=dict, compare=False, repr=False)
    refuted: list[str] = field(default_factory=list, compare=False)

    @property
    def applies(self) -> bool:
        """Whether anything is used or kept: the user's variable may say no."""
        return self.remember and remembers()


_told: ContextVar[Remembering | None] = ContextVar("remembering", default=None)


@contextmanager
def remembering(told: Remembering) -> Iterator[None]:
    """Has commands use and keep what was found as they are told, for a while."""
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def how_told() -> Remembering:
    """Gives what the present command was told; outside of any, the defaults."""
    return _told.get() or Remembering()


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """The facts about a file of which one changes when it is replaced, or written to.

    Attributes:
        place: the file that all links lead to.
        device: number of its file system.
        inode: its number there.
        size: bytes.
        modified: time of the last change of its content, in nanoseconds.
        changed: time of the last change of anything about it, in nanoseconds; no program can set it.
    """

    place: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Takes a file's stamp.

        Raises:
            OSError: it is not there.
        """
        place = os.path.realpath(path)
        state = os.stat(place)
        return cls(
            place=place,
            device=state.st_dev,
            inode=state.st_ino,
            size=state.st_size,
            modified=state.st_mtime_ns,
            changed=state.st_ctime_ns,
        )

    def settled(self, now: int) -> bool:
        """Whether the file was left alone long enough before a time, in nanoseconds; never where a time lies ahead."""
        return max(self.modified, self.changed) + SETTLED <= now


@dataclass(frozen=True)
class Digest:
    """A content hash that was found.

    Attributes:
        hash: the hash.
        key: the entry that it was taken from, unread; None: the files were read.
        refuted: what was remembered in its place, where that was wrong.
    """

    hash: str
    key: str | None = None
    refuted: str | None = None

    def forget(self) -> None:
        """Drops what was remembered and is wrong, and the scores that were kept for it."""
        if self.key is not None:
            _forget(self.key, self.hash)


def digest_of(stamps: Sequence[Stamp], how: Sequence[str], make: Callable[[], str]) -> Digest:
    """Finds the content hash of files, from what was found before where they have not changed since.

    Args:
        stamps: what the files were before they were opened, in order.
        how: what else decides the hash.
        make: reads them, and hashes what is in them.

    Raises:
        Whatever ``make`` raises; nothing is kept then.
    """
    told, now = how_told(), time.time_ns()
    if not (told.applies and stamps and all(stamp.settled(now) and _same(stamp) for stamp in stamps)):
        return Digest(make())
    decided = [_sources(), *how, *([*vars(stamp).values()] for stamp in stamps)]
    key = blake3(json.dumps(decided).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    shelf = Shelf(HASHES)
    known = _text(shelf.get(key))
    if known is not None and not told.verify:
        return Digest(known, key)
    found = make()
    refuted = known if known not in (None, found) else None
    if refuted is not None:
        _forget(key, refuted)
        told.refuted.append(stamps[0].place)
    elif known is None and all(_same(stamp) for stamp in stamps):
        shelf.put(key, found.encode())
    return Digest(found, refuted=refuted)


def _forget(key: str, wrong: str) -> None:
    Shelf(HASHES).drop(key)
    Shelf(SCORES).drop_where(lambda content: wrong.encode() in content)


def _same(stamp: Stamp) -> bool:
    """Whether a file is what it was when its stamp was taken."""
    try:
        return Stamp.of(Path(stamp.place)) == stamp
    except OSError:
        return False


def _text(content: bytes | None) -> str | None:
    """A hash that was kept; None where it is none."""
    text = content.decode("ascii", "replace") if content is not None else ""
    return text if len(text) == 64 and set(text) <= _HEX else None


@functools.cache
def _sources() -> str:
    """A digest of the code that opens files: what it takes for the model's tensors decides their hash."""
    return code_digest(Path(__file__).parent)


def code_digest(*folders: Path) -> str:
    """A digest of the Python files in folders, by name and content.

    Raises:
        OSError: one cannot be read.
    """
    digest = blake3()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode()).update(blake3(path.read_bytes()).digest())
    return digest.hexdigest()

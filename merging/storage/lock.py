"""One lock for everything that is written: claimed before the first byte, let go after the last.

It is a ``flock`` on a hidden file, so that it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from merging.errors import FolderError
from merging.storage.atomic import LEFTOVER, leftovers, refusals, remove

NAME = ".lock"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""A lock is a file of its folder: one that is a link could make files anywhere."""


class Lock:
    """The right to write to a folder, or to a file, that nobody else has meanwhile.

    Whoever has it removes what a killed writer has left there.

    Args:
        path: the folder; or what will be written, whose lock then lies beside it.
        beside: take the lock beside the path, not in it.
        wait: whether to wait for another writer to end, instead of being refused.

    Raises:
        FolderError: another process writes there, or nobody can.
    """

    def __init__(self, path: Path, *, beside: bool = False, wait: bool = False) -> None:
        self._place = path.with_name(f".{path.name[-100:]}{NAME}") if beside else path / NAME
        self._file: IO[bytes] | None = None
        with refusals(f"cannot write to {self._place.parent}"):
            while self._file is None:
                self._file = _locked(self._place, path, wait=wait)
            try:
                for left in leftovers(self._place.parent, path.name if beside else None):
                    with contextlib.suppress(OSError):  # another user's
                        remove(left)
            except OSError:
                self.release()
                raise

    def release(self) -> None:
        """Lets go of the lock; a second time does nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._place.unlink()  # while it is held: the next one makes a new file, and notices this one gone
            self._file.close()
            self._file = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(folder: Path) -> bool:
    """Whether a process is writing to a folder now; nothing is made or changed there."""
    try:
        import fcntl

        file = os.open(folder / NAME, os.O_RDONLY)
    except (ImportError, OSError):  # no such system; nobody writes there, or nobody may know
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)  # lets go of it
    return False


def is_hidden(name: str) -> bool:
    """Whether a name in a folder is of a lock or of something unfinished, and no content."""
    return name == NAME or name.startswith(LEFTOVER)


def _locked(place: Path, path: Path, *, wait: bool) -> IO[bytes] | None:
    """Opens the file and locks it; None where its last holder has removed it meanwhile."""
    file = os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666), "r+b")
    try:
        import fcntl
    except ImportError:  # pragma: no cover (Windows has no flock)
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(file.fileno()), place.stat()):
            return file
    except FileNotFoundError:
        pass
    except BlockingIOError:
        file.close()
        raise FolderError(f"another run is writing to {path}; wait for it or choose another `output`") from None
    file.close()
    return None

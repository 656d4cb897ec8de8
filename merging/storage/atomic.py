"""Files and folders that are whole or not there, whatever ends the process or the machine.

Everything that is written goes through here: into a name beside it, synced, renamed into place, and the folder synced.
What is finished is then on the disk. Modes are those that the process's umask gives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import FolderError, refused

if TYPE_CHECKING:
    from torch import Tensor

LEFTOVER = ".writing-"
"""Begins the name of everything that is being written; what a killed process has left is known by it."""


@contextlib.contextmanager
def refusals(doing: str, way_out: str = "") -> Iterator[None]:
    """Says as one line what the system refuses while the block writes.

    Args:
        doing: begins the message, such as "cannot write to runs/one".
        way_out: ends it.

    Raises:
        FolderError: in the place of any OSError, with the system's reason; one that is raised there stays.
    """
    try:
        yield
    except FolderError:
        raise
    except OSError as error:
        raise FolderError(f"{doing}: {refused(error)}{way_out}") from None


def sync(path: Path) -> None:
    """Puts a file's content, or a folder's names, on the disk.

    Raises:
        OSError: it is not there, or the disk failed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network and user-space file systems know no fsync of folders: nothing more can be done there
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Puts a folder on the disk with everything in it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            sync_tree(path)
        elif path.is_file():
            sync(path)
    sync(folder)


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Makes a folder and those above it, and puts their names on the disk.

    Raises:
        OSError: it cannot be made, or is there already and may not be.
    """
    missing = []
    for above in path.absolute().parents:
        if above.exists():
            break
        missing.append(above)
    for above in reversed(missing):
        above.mkdir(exist_ok=True)
        sync(above.parent)
    if exist_ok and path.is_dir():
        return
    path.mkdir(exist_ok=exist_ok)
    sync(path.absolute().parent)


def new_folder(parent: Path, name: str = "") -> Path:
    """Makes an empty folder to write in, beside what it will become; nobody else has its name."""
    while True:
        path = parent / f"{LEFTOVER}{secrets.token_hex(4)}{_ending(name)}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def create(path: Path) -> int:
    """Makes a file that is not there yet, and returns a descriptor that reads and writes."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def put(path: Path, content: bytes | str) -> None:
    """Writes a new file where nobody looks yet: into a folder that is synced and renamed as a whole."""
    with os.fdopen(create(path), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def copy(source: Path, target: Path) -> None:
    """Copies a file's content, not its mode, as :func:`put` does."""
    with source.open("rb") as given, os.fdopen(create(target), "wb") as file:
        shutil.copyfileobj(given, file, 1 << 20)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file to make, which takes a path's place, whole and on the disk, when the block ends well.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    folder = new_folder(path.absolute().parent, path.name)  # of its own: libraries make temporary files, too
    aside = folder / path.name
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    folder.rmdir()
    sync(folder.parent)


def write(path: Path, content: bytes | str) -> None:
    """Writes a file, whole or not at all; text as UTF-8."""
    with replacing(path) as aside:
        put(aside, content)


def swap(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all, as long as the machine goes on: for what is checked when it is read.

    Nothing is synced, because it can be made again: a machine that stops may leave it cut.
    """
    aside = path.with_name(f"{LEFTOVER}{secrets.token_hex(8)}")
    try:
        put(aside, content)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def take_place(new: Path, target: Path) -> None:
    """Renames what was synced into place; it is there for good when this returns."""
    move([new], target.absolute().parent, [target.name])


def move(new: Iterable[Path], folder: Path, names: Iterable[str] | None = None) -> None:
    """Renames what was synced into a folder, in order; all of it is there for good when this returns.

    Args:
        new: the files and folders that are moved.
        folder: the folder that they are moved to.
        names: their names there; default: those they have.
    """
    new = list(new)
    for path, name in zip(new, names or [path.name for path in new], strict=True):
        os.replace(path, folder / name)
    sync(folder)


def remove(*paths: Path) -> None:
    """Removes files and folders that may be there; they are gone for good when this returns."""
    changed = set()
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            continue
        changed.add(path.absolute().parent)
    for parent in sorted(changed):
        sync(parent)


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as :func:`put` does; wrap it in :func:`replacing` where somebody looks."""
    from safetensors.torch import save_file

    if not path.exists():
        os.close(create(path))
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata=dict(metadata) if metadata is not None else None)
    if path.is_file():
        path.chmod(mode)  # safetensors' own files can be read by their owner only


def save_torch(path: Path, values: Any) -> None:
    """Writes what ``torch.save`` writes, as :func:`put` does."""
    import torch

    torch.save(values, path)


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Lists what is being written in a folder, or was when its writer was killed; with a name, what becomes that."""
    found = [path for path in parent.iterdir() if path.name.startswith(LEFTOVER)]
    if name is None:
        return found
    return [path for path in found if path.name[len(LEFTOVER) + 8 :] == _ending(name)]


def _ending(name: str) -> str:
    return f"-{name[-100:]}" if name else ""

"""A run's folder: claimed once, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from merging.errors import DAMAGED, FolderError, MergingError, is_full, near_path, reason_of
from merging.storage import atomic, journal
from merging.storage.adapter_folder import CONFIG
from merging.storage.lock import Lock, is_hidden
from merging.storage.result import (
    ADAPTER,
    CARD,
    ENSEMBLE,
    MEMBERS,
    MODELS,
    OVERRIDES,
    PAGE,
    RECIPE,
    REPORT,
    is_member,
    is_plain,
    lies_in,
    named_files,
)
from merging.storage.shards import INDEX, SHARD
from merging.values.formats import parsed

_LEDGER = ".replacing.json"
"""What is being replaced and by what, as long as that takes: a run that is killed meanwhile leaves no other record."""
_DESCRIBING = (PAGE, REPORT, CARD, RECIPE, ENSEMBLE, INDEX)
"""What says what the rest is: removed before it is replaced, in this order, and written after it, in the other one."""
_OURS = (*MODELS.values(), ADAPTER, CONFIG, RECIPE, OVERRIDES, ENSEMBLE, MEMBERS, REPORT, PAGE, CARD, journal.FILE)


def check_place(folder: Path) -> None:
    """Says, before any work, whether results can be written to a folder that may not be there yet; changes nothing.

    Raises:
        FolderError: it is a file, or this process may not write where it would be made.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"`output` {folder} is a file; name a folder")
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise FolderError(f"cannot write to {there}; choose another `output`")


def check_parent(path: Path, called: str) -> None:
    """Says, before any work, whether the folder of a file that will be written is there.

    Args:
        path: the file that will be written.
        called: begins the message, such as "--output soup.pt".

    Raises:
        FolderError: it is not.
    """
    if not path.absolute().parent.is_dir():
        raise FolderError(f"{called}: there is no folder {path.parent}{near_path(path.parent)}")


def check_free(folder: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Says, before any work, whether a new run can use a folder; changes nothing.

    Args:
        folder: the run's output.
        overwrite: an earlier run there may be replaced. Files of the same names that no run wrote are not.
        inputs: files that the run reads; none of them may be overwritten by its result.

    Raises:
        FolderError: it is a file, holds other files, or cannot be written.
    """
    check_place(folder)
    earlier = (folder / journal.FILE).exists()
    if folder.is_dir() and any(not is_hidden(path.name) for path in folder.iterdir()) and not overwrite:
        what = "another run" if earlier else "other files"
        way = "continue it with `resume`, or " if earlier else ""
        raise FolderError(f"{folder} holds {what}; {way}choose another `output` or pass `overwrite`")
    foreign = [] if earlier or not folder.is_dir() else sorted(p.name for p in folder.iterdir() if _is_ours(p.name))
    if foreign:
        raise FolderError(
            f"{folder / foreign[0]} was not written by a run and is not overwritten; choose another `output`"
        )
    for path in inputs:
        below = (
            path.resolve().relative_to(folder.resolve()).parts
            if path.resolve().is_relative_to(folder.resolve())
            else ()
        )
        if below and _is_ours(below[0]):
            raise FolderError(f"{path} is merged and would be overwritten by the result; choose another `output`")


def claim(folder: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> journal.Journal:
    """Makes the folder and begins its journal; an earlier run's results stay until the new ones are written.

    Raises:
        FolderError: as :func:`check_free`, or another process is writing there.
    """
    check_free(folder, overwrite=overwrite, inputs=inputs)
    with atomic.refusals(f"cannot write to {folder}"):
        atomic.make_folder(folder)
        lock = Lock(folder)
    try:
        check_free(folder, overwrite=overwrite, inputs=inputs)  # another one may have come first, and be done
    except FolderError:
        lock.release()
        raise
    return journal.Journal(folder / journal.FILE, lock=lock)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Gives a folder beside the results to write them into; they appear, renamed into place, when the block ends well.

    What an earlier run has left there and this one does not write (other shards, an index, a tokenizer) is removed.
    Whenever this is killed, no report, recipe, card or index stands beside something else than it describes.

    Raises:
        FolderError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    aside: Path | None = None
    try:
        atomic.make_folder(folder)
        aside = atomic.new_folder(folder)
        yield aside
        atomic.sync_tree(aside)
        _publish(aside, folder)
    except MergingError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
        reason = reason_of(error).replace("; free some space", "")  # the way out stands behind it
        raise FolderError(
            f"cannot write the result to {folder}: {reason}; nothing was left there, "
            + ("free some space or choose another `output`" if is_full(error) else "choose another `output`")
        ) from None
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):  # the next one that has the lock removes it
                atomic.remove(aside)


def _publish(aside: Path, folder: Path) -> None:
    """Puts new results in the place of old ones, on the disk at every step."""
    new = {file.name for file in aside.iterdir()}
    own = {f"{MEMBERS}/{path.name}" for path in (aside / MEMBERS).glob("*")}
    if own and (folder / MEMBERS).is_symlink():
        raise FolderError(f"{folder / MEMBERS} is a link, and nothing is written through it; remove it")
    files, written = _recorded(folder)
    for name in sorted(own - written):
        if (folder / name).exists():
            raise FolderError(f"{folder / name} was not written by a run and is not overwritten; move it away")
    old = {name for name in files | set(os.listdir(folder)) if name in files or _is_ours(name)} - {journal.FILE}
    ledger = {"files": sorted(old | new), "members": sorted(written | own)}
    atomic.write(folder / _LEDGER, json.dumps(ledger, indent=1) + "\n")
    atomic.remove(*(folder / name for name in _DESCRIBING))
    gone = [folder / name for name in sorted(old)]
    atomic.remove(*(path for path in gone if path.is_file() or path.is_symlink()), *(folder / name for name in written))
    if own:
        atomic.make_folder(folder / MEMBERS)
        atomic.move(sorted((aside / MEMBERS).iterdir()), folder / MEMBERS)
    describing = [name for name in reversed(_DESCRIBING) if name in new and name != REPORT]
    for group in (sorted(new - {MEMBERS, *_DESCRIBING}), describing, [REPORT] if REPORT in new else []):
        atomic.move([aside / name for name in group], folder)
    with contextlib.suppress(OSError):  # not there, or holds what no run wrote
        (folder / MEMBERS).rmdir()
    atomic.remove(folder / _LEDGER)  # the report is the record now


def _recorded(folder: Path) -> tuple[set[str], set[str]]:
    """Files and folders of members that earlier runs say they have written, also one that was killed while it did."""
    try:
        ledger = parsed((folder / _LEDGER).read_bytes())
        files, members = list(ledger["files"]), list(ledger["members"])
    except DAMAGED:
        files, members = [], []
    names = {name for name in files if isinstance(name, str) and is_plain(name)}
    return (names | _earlier(folder)) - {journal.FILE}, _there(folder, members) | _members(folder)


def _members(folder: Path) -> set[str]:
    """Folders of the members of an ensemble that an earlier run has written."""
    try:
        entries = parsed((folder / ENSEMBLE).read_bytes())["members"]
        return _there(folder, [entry["folder"] for entry in entries])
    except DAMAGED:
        return set()


def _there(folder: Path, names: Iterable[object]) -> set[str]:
    """Which members are there, under names that a run gives: they are removed, and a file may say anything."""
    named = {name for name in names if isinstance(name, str) and is_member(name)}
    return {name for name in named if lies_in(folder, name) and (folder / name).is_dir()}


def _earlier(folder: Path) -> set[str]:
    """Names of the files that an earlier run says it has written."""
    try:
        return set(named_files(folder))
    except DAMAGED:
        return set()


def _is_ours(name: str) -> bool:
    return name in _OURS or name == INDEX or SHARD.fullmatch(name) is not None

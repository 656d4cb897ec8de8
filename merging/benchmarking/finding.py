"""Which results are meant where people name folders: results themselves, or folders with some in them, at any depth."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.benchmarking.folder import METHODS, PICTURES, RESULT
from merging.benchmarking.history import DEPTH, Entry, Kind, State, entries, entry_of
from merging.benchmarking.reading import unread
from merging.errors import DAMAGED, FolderError, RequirementError, near_path
from merging.storage.result import MEMBERS, REPORT


@dataclass(frozen=True)
class Found:
    """The results that are meant.

    Attributes:
        results: name that tells it from the others → folder.
        left_out: folder → why it is none of them.
    """

    results: dict[str, Path]
    left_out: dict[str, str]


def find(folders: Sequence[Path], depth: int = DEPTH) -> Found:
    """Finds the results that folders are, or have in them.

    A folder of results is meant itself; of any other one all results below, as deep as ``merge runs`` looks. One that
    is reached twice is there once.

    Args:
        folders: what was named.
        depth: levels of folders below.

    Raises:
        RequirementError: a folder is named twice.
        FolderError: there is none of that name, or no result in all of them.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        again = next(folder for i, folder in enumerate(folders) if places[i] in places[:i])
        raise RequirementError(f"{again} is named twice, by another path or this one; name each folder once")
    chosen: dict[Path, Path] = {}
    left_out: dict[str, str] = {}
    for folder in folders:
        if not folder.exists():
            raise FolderError(f"there is no folder {folder}{near_path(folder)}")
        for place, why in _meant(folder, depth):
            if why:
                left_out[str(place)] = why
            else:
                chosen.setdefault(place.resolve(), place)
    if not chosen:
        raise FolderError(_nothing(folders, left_out, depth))
    for place in list(chosen.values()):
        left_out |= dict.fromkeys(_inner(place, set(chosen)), "it lies in the folder of another result; name it too")
    return Found(_names(list(chosen.values())), left_out)


def _meant(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    """The folders that one stands for, each with why it is left out, or nothing."""
    if not folder.is_dir():
        yield folder, "it is a file, no folder of results"
        return
    own = entry_of(folder)
    if own is not None:
        yield folder, reason(own)
        return
    below = [entry for entry in entries(folder, depth) if entry.folder != folder]
    for entry in sorted(below, key=lambda entry: str(entry.folder)):
        yield entry.folder, (_shows_others(entry.folder) if entry.kind is Kind.COMPARISON else "") or reason(entry)
    if not below:
        yield folder, f"{unread(folder).removeprefix(f'{folder} ')}, here or up to {depth} levels below"


def reason(entry: Entry) -> str:
    """Says why a folder's results cannot be shown beside others; nothing where they can."""
    if entry.kind is Kind.FINETUNE:
        return "a fine-tuned pool, which is no merge"
    if entry.state in (State.DAMAGED, State.NEWER):
        return f"{entry.folder}/{entry.status}"
    if entry.state is State.RUNNING:
        return "it is still running"
    return unread(entry.folder) if entry.state is State.CUT_OFF else ""


def _shows_others(folder: Path) -> str:
    """Says that results are those of other folders; nothing of a benchmark whose evaluations are not beside it."""
    try:
        told = json.loads((folder / RESULT).read_bytes())
        if told.get("run"):
            return "it shows a run that lies elsewhere"
        several = bool(told.get("folders")) or "numerics" not in told["header"]  # of an earlier version
    except DAMAGED:
        return ""
    return "it compares the results of other folders" if several else ""


def _nothing(folders: Sequence[Path], left_out: dict[str, str], depth: int) -> str:
    """Says that there is nothing to compare, and the first reason why."""
    if len(left_out) == 1:
        ((place, why),) = left_out.items()
        return why if place in why else f"{place}: {why}" if not why.startswith("holds") else f"{place} {why}"
    first = next(iter(left_out.items()))
    named = ", ".join(map(str, folders[:3]))
    where = f"no result to report on in {named} ({depth} levels deep)"
    return f"{where}; {len(left_out)} are left out, such as {first[0]}: {first[1]}"


def _inner(folder: Path, chosen: set[Path]) -> Iterator[str]:
    """Results that lie in the folder of another one, which is not looked into."""
    try:
        with os.scandir(folder) as listed:
            names = sorted(each.name for each in listed if each.is_dir())
    except OSError:  # another user's
        return
    for name in names:
        inner = folder / name
        ours = name in (METHODS, MEMBERS, PICTURES) or name.startswith(".")
        if not ours and any((inner / file).is_file() for file in (RESULT, REPORT)) and inner.resolve() not in chosen:
            yield str(inner)


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by what tells them apart: their last parts, as few as are enough."""
    whole = [folder.resolve().parts for folder in folders]
    length = next(n for n in range(1, max(map(len, whole)) + 1) if len({parts[-n:] for parts in whole}) == len(whole))
    return {"/".join(parts[-length:]): folder for parts, folder in zip(whole, folders, strict=True)}

"""Decoded images on disk: made once from a file's content and a transform, then mapped into memory.

The folder is ``$MERGING_CACHE``, else ``~/.cache/merging``. Deleting it costs time, nothing else. A folder that cannot
be written to is no error: images are then decoded for this run only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray

from merging.data.damage import Damage, Tolerance
from merging.errors import TaskError
from merging.plugins.task import Split

Images = NDArray[np.uint8]
VERSION = 1
"""Of what is stored; another number leaves older files alone."""


def cache_folder() -> Path:
    """Where decoded images are kept."""
    return Path(os.environ.get("MERGING_CACHE") or Path.home() / ".cache" / "merging").expanduser()


def cached(
    file: Path,
    how: dict[str, Any],
    make: Callable[[], tuple[Images, NDArray[np.int64], list[Damage]]],
    tolerance: Tolerance,
) -> Split:
    """The split that ``make`` decodes from a file; from disk where that was done before.

    Args:
        file: its content decides, not its name.
        how: everything else that decides the pixels, JSON-ready.
        make: decodes: images ``(N, H, W, 3)``, labels ``(N,)``, and which images were left out.
        tolerance: how many may be; asked at every run, so that the same ones are named again.

    Raises:
        TaskError: whatever ``make`` finds wrong, or too many damaged images; nothing is kept then.
    """
    place = _place([content_of(file), how])
    found = _read(place, tolerance)
    if found is not None:
        return found
    images, labels, damaged = make()
    tolerance.accept(len(labels) + len(damaged), damaged)
    split = Split.of(torch.from_numpy(images), torch.from_numpy(labels))
    with contextlib.suppress(OSError):  # a full or read-only disk: this run goes on without
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            np.save(aside / "images.npy", images)
            _settle(aside, place, labels, split.fingerprint, damaged)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return _read(place) or split
    return split


def cached_images(
    decided: Any,
    labels: NDArray[np.int64],
    shape: Callable[[], tuple[int, int]],
    fill: Callable[[Images], list[Damage]],
    tolerance: Tolerance,
) -> Split:
    """A split of many images, decoded straight into the file that is kept, so that it need not fit into memory.

    Args:
        decided: all that decides the pixels, JSON-ready.
        labels: ``(N,)``.
        shape: finds height and width of the decoded images; asked only where they are not on disk.
        fill: writes the images into the array ``(N, H, W, 3)`` that it is given; returns those it could not decode.
        tolerance: how many may be; asked at every run, so that the same ones are named again.

    Raises:
        TaskError: whatever ``fill`` finds wrong, or too many damaged images; nothing is kept then.
    """
    place = _place(["folder", decided])
    found = _read(place, tolerance)
    if found is not None:
        return found
    whole = (len(labels), *shape(), 3)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent))
    except OSError:  # nowhere to keep them: in memory, for this run
        images = np.zeros(whole, np.uint8)
        damaged = fill(images)
        tolerance.accept(len(labels), damaged)
        rest = _undamaged(len(labels), damaged)
        return Split.of(torch.from_numpy(images[rest] if damaged else images), torch.from_numpy(labels[rest]))
    try:
        needed, free = int(np.prod(whole, dtype=np.int64)), shutil.disk_usage(aside).free
        if needed > free:
            raise TaskError(
                f"{whole[0]:,} decoded images need {needed / 1e9:.1f} GB in {cache_folder()}, {free / 1e9:.1f} GB are "
                "free; name another folder with MERGING_CACHE"
            )
        images = np.lib.format.open_memmap(aside / "images.npy", mode="w+", dtype=np.uint8, shape=whole)
        damaged = fill(images)
        tolerance.accept(len(labels), damaged)
        if damaged:
            images = _without(images, damaged, aside)
        labels = labels[_undamaged(len(labels), damaged)]
        split = Split.of(torch.from_numpy(images), torch.from_numpy(labels))
        images.flush()
        _settle(aside, place, labels, split.fingerprint, damaged)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _read(place) or split


def remembered(decided: Any, make: Callable[[], Any]) -> Any:
    """A small JSON value that takes long to find, such as what a large file lists; from disk where it was found before.

    Args:
        decided: all that decides it, JSON-ready.
        make: finds it.
    """
    key = blake3(json.dumps([VERSION, decided], sort_keys=True).encode()).hexdigest()[:32]
    note = cache_folder() / "lists" / key
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note.read_text("utf-8"))
    value = make()
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        _replace(note, json.dumps(value))
    return value


def content_of(file: Path) -> str:
    """BLAKE3 of a file; remembered with its size and time of change, so that a large file is read once."""
    state = file.stat()
    facts = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}"
    known = blake3(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    note = cache_folder() / "files" / known
    with contextlib.suppress(OSError):
        return note.read_text("utf-8")
    digest = blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest()
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        _replace(note, digest)
    return digest


def _place(decided: list[Any]) -> Path:
    """Where images are kept that are decided by these values, and by the versions of what decodes them."""
    versions = [importlib.metadata.version(name) for name in ("pillow", "torchvision")]  # importing them takes seconds
    key = blake3(json.dumps([VERSION, *versions, *decided], sort_keys=True).encode()).hexdigest()
    return cache_folder() / "images" / key[:32]


def _read(place: Path, tolerance: Tolerance | None = None) -> Split | None:
    try:
        images = np.load(place / "images.npy", mmap_mode="c")  # shared pages; torch wants a writable array
        labels = np.load(place / "labels.npy")
        facts = json.loads((place / "split.json").read_text("utf-8"))
        fingerprint, damaged = facts["fingerprint"], [Damage(*entry) for entry in facts.get("damaged", ())]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or cut off: made again
        return None
    if tolerance is not None:
        tolerance.accept(len(labels) + len(damaged), damaged)
    return Split(torch.from_numpy(images), torch.from_numpy(labels), fingerprint)


def _settle(aside: Path, place: Path, labels: NDArray[np.int64], fingerprint: str, damaged: list[Damage]) -> None:
    """Completes a folder that holds the images, and renames it into place: a folder that is there is whole."""
    np.save(aside / "labels.npy", labels)
    left_out = [[damage.number, damage.name, damage.why] for damage in damaged]
    (aside / "split.json").write_text(json.dumps({"fingerprint": fingerprint, "damaged": left_out}))
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)


def _undamaged(count: int, damaged: list[Damage]) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(count), [damage.number for damage in damaged])


def _without(images: np.memmap[Any, Any], damaged: list[Damage], folder: Path) -> np.memmap[Any, Any]:
    """The same file without the rows of damaged images."""
    rest = _undamaged(len(images), damaged)
    whole = np.lib.format.open_memmap(
        folder / "rest.npy", mode="w+", dtype=np.uint8, shape=(len(rest), *images.shape[1:])
    )
    for start in range(0, len(rest), 1024):
        whole[start : start + 1024] = images[rest[start : start + 1024]]
    (folder / "rest.npy").replace(folder / "images.npy")
    return whole


def _replace(note: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(note)

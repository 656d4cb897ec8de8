"""Decoded images on disk: made once from a file's content and a transform, then mapped into memory.

The folder is ``$MERGING_CACHE``, else ``~/.cache/merging``. Deleting it costs time, nothing else. A folder that cannot
be written to is no error: images are then decoded for this run only. What is kept is verified whenever it is opened.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray

from merging.data.damage import Damage, Losses, Tolerance, undamaged
from merging.errors import DAMAGED, TaskError, refused
from merging.machine import available_memory
from merging.plugins.task import Split
from merging.storage import atomic
from merging.storage.file_hashes import Stamp, digest_of
from merging.storage.lock import Lock
from merging.storage.user_cache import cache_folder

Images = NDArray[Any]
"""An array of pictures: uint8 ``(…, H, W, 3)``, or float32 ``(…, 3, H, W)`` where a transform is kept whole."""
VERSION = 2
"""Counts the ways of storing; another number leaves older files alone."""


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
        make: decodes: images, labels ``(N,)``, and which images were left out.
        tolerance: how many may be; asked at every run, so that the same ones are named again.

    Raises:
        TaskError: whatever ``make`` finds wrong, or too many damaged images; nothing is kept then.
    """
    place = _place([content_of(file), how])
    found = _read(place, tolerance)
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        aside: Path | None = None
        with contextlib.suppress(OSError):  # a full or read-only disk: this run goes on without
            aside = stack.enter_context(folder_for(place))
            found = _read(place, tolerance)  # another process may have made it while this one waited for it
            if found is not None:
                return found
        images, labels, damaged = make()
        tolerance.accept(len(labels) + len(damaged), damaged)
        split = Split.of(torch.from_numpy(images), torch.from_numpy(labels))
        with contextlib.suppress(OSError):
            if aside is not None:
                save_array(aside / "images.npy", images)
                _settle(aside, place, labels, split.fingerprint, damaged)
                return _read(place, verify=False) or split
    return split


def cached_images(
    decided: Any,
    labels: NDArray[np.int64],
    shape: Callable[[], tuple[int, ...]],
    fill: Callable[[Images], list[Damage]],
    tolerance: Tolerance,
    *,
    dtype: np.dtype[Any] = np.dtype(np.uint8),  # noqa: B008
) -> Split:
    """A split of many images, decoded straight into the file that is kept, so that it need not fit into memory.

    Args:
        decided: all that decides the pixels, JSON-ready.
        labels: ``(N,)``.
        shape: finds the shape of all decoded images, N first; asked only where they are not on disk.
        fill: writes the images into the array that it is given; returns those it could not decode.
        tolerance: how many may be; asked at every run, so that the same ones are named again.
        dtype: dtype of the decoded images.

    Raises:
        TaskError: whatever ``fill`` finds wrong, or too many damaged images; nothing is kept then.
    """
    place = _place(["folder", decided])
    found = _read(place, tolerance)
    if found is not None:
        return found
    whole = shape()

    def decode(images: Images, aside: Path | None) -> tuple[Split, NDArray[np.int64], list[Damage]]:
        damaged = fill(images)
        tolerance.accept(len(labels), damaged)
        rest = undamaged(len(labels), damaged)
        if damaged:
            try:
                images = _without(images, rest, aside) if aside is not None else images[rest]
            except OSError:  # no room for a second file
                images = images[rest]
        return Split.of(torch.from_numpy(images), torch.from_numpy(labels[rest])), labels[rest], damaged

    with contextlib.ExitStack() as stack:
        try:
            aside = stack.enter_context(folder_for(place))
            found = _read(place, tolerance)  # another process may have made them while this one waited for it
            if found is not None:
                return found
            images = _mapped(aside / "images.npy", whole, dtype)
        except OSError as error:  # nowhere to keep them: in memory, for this run
            return decode(_in_memory(whole, dtype, error), None)[0]
        split, kept, damaged = decode(images, aside)
        with contextlib.suppress(OSError):  # what is there belongs to somebody else: used, and not kept
            _settle(aside, place, kept, split.fingerprint, damaged)
            return _read(place, verify=False) or split
    return split


@contextlib.contextmanager
def folder_for(place: Path) -> Iterator[Path]:
    """A folder to decode into, which nobody else does for the same images meanwhile.

    Raises:
        OSError: nothing can be written there.
    """
    atomic.make_folder(place.parent)
    with Lock(place, beside=True, wait=True):
        aside = atomic.new_folder(place.parent, place.name)
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """A file for images, with room for all of them.

    Raises:
        OSError: the disk has less room.
    """
    images = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a disk that is found full later ends the process
        handle = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(handle, 0, path.stat().st_size)
        finally:
            os.close(handle)
    return images


def _in_memory(shape: tuple[int, ...], dtype: np.dtype[Any], why: OSError) -> Images:
    """Room for images that cannot be kept.

    Raises:
        TaskError: there is too little memory, too.
    """
    needed, free = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, available_memory()
    if needed > free:
        raise TaskError(
            f"{shape[0]:,} decoded images need {needed / 1e9:.1f} GB; {cache_folder()} cannot keep them "
            f"({refused(why)}), and {free / 1e9:.1f} GB of memory are free; name another folder with "
            "MERGING_CACHE"
        )
    return np.zeros(shape, dtype)


def remembered(decided: Any, make: Callable[[], Any]) -> Any:
    """A small JSON value that takes long to find, such as what a large file lists; from disk where it was found before.

    Args:
        decided: all that decides it, JSON-ready.
        make: finds it.
    """
    note = cache_folder() / "lists" / key_of([VERSION, decided])
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note.read_text("utf-8"))
    value = make()
    with contextlib.suppress(OSError):
        atomic.make_folder(note.parent)
        atomic.write(note, json.dumps(value))
    return value


def content_of(file: Path) -> str:
    """BLAKE3 of a file; remembered as checkpoints' hashes are, so that a large file is read once."""
    return digest_of(
        [Stamp.of(file)], ["bytes"], lambda: blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest()
    ).hash


def _place(decided: list[Any]) -> Path:
    """Where images are kept that are decided by these values, and by the versions of what decodes them."""
    versions = [importlib.metadata.version(name) for name in ("pillow", "torchvision")]  # importing them takes seconds
    return cache_folder() / "images" / key_of([VERSION, *versions, *decided])


def key_of(decided: list[Any]) -> str:
    """Gives the name of what is kept: a digest of all that decides it."""
    """Gives the name of what is kept: a digest of all that decides it."""
    return blake3(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:32]


def _read(place: Path, tolerance: Tolerance | None = None, *, verify: bool = True) -> Split | None:
    """What is kept there, if it is whole: pixels and labels must have the fingerprint that they were kept with."""
    try:
        images = np.load(place / "images.npy", mmap_mode="c")  # shared pages; torch wants a writable array
        labels = np.load(place / "labels.npy")
        facts = json.loads((place / "split.json").read_text("utf-8"))
        fingerprint = facts["fingerprint"]
        damaged = Losses((Damage(*entry) for entry in facts.get("damaged", ())), facts.get("changed"))
        split = Split(inputs=torch.from_numpy(images), labels=torch.from_numpy(labels), fingerprint=fingerprint)
        if verify and Split.of(split.inputs, split.labels).fingerprint != fingerprint:
            return None
    except (*DAMAGED, EOFError, TaskError):  # not there, cut off, or changed: made again
        return None
    if tolerance is not None:
        tolerance.accept(len(labels) + len(damaged), damaged)
    return split


def _settle(aside: Path, place: Path, labels: NDArray[np.int64], fingerprint: str, damaged: list[Damage]) -> None:
    """Completes a folder that holds the images, and renames it into place: a folder that is there is whole."""
    save_array(aside / "labels.npy", labels)
    left_out = [[damage.number, damage.name, damage.why] for damage in damaged]
    changed = damaged.changed if isinstance(damaged, Losses) else {}
    facts = {"fingerprint": fingerprint, "damaged": left_out, "changed": changed}
    atomic.put(aside / "split.json", json.dumps(facts))
    atomic.sync_tree(aside)
    atomic.remove(place)
    atomic.take_place(aside, place)


def save_array(path: Path, values: NDArray[Any]) -> None:
    """Writes an array to a file that is not there."""
    """Writes an array to a file that is not there."""
    with os.fdopen(atomic.create(path), "wb") as file:
        np.save(file, values)


def _without(images: Images, rest: NDArray[np.int64], folder: Path) -> Images:
    """The same file without the rows of damaged images."""
    whole = _mapped(folder / "rest.npy", (len(rest), *images.shape[1:]), images.dtype)
    for start in range(0, len(rest), 1024):
        whole[start : start + 1024] = images[rest[start : start + 1024]]
    atomic.take_place(folder / "rest.npy", folder / "images.npy")
    return whole

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

from merging.errors import TaskError
from merging.task import Split

Images = NDArray[np.uint8]
VERSION = 1
"""Of what is stored; another number leaves older files alone."""


def cache_folder() -> Path:
    """Where decoded images are kept."""
    return Path(os.environ.get("MERGING_CACHE") or Path.home() / ".cache" / "merging").expanduser()


def cached(file: Path, how: dict[str, Any], make: Callable[[], tuple[Images, NDArray[np.int64]]]) -> Split:
    """The split that ``make`` decodes from a file; from disk where that was done before.

    Args:
        file: its content decides, not its name.
        how: everything else that decides the pixels, JSON-ready.
        make: decodes: images ``(N, H, W, 3)`` and labels ``(N,)``.

    Raises:
        TaskError: whatever ``make`` finds wrong; nothing is kept then.
    """
    versions = [importlib.metadata.version(name) for name in ("pillow", "torchvision")]  # importing them takes seconds
    decided = [VERSION, *versions, content_of(file), how]
    place = cache_folder() / "images" / blake3(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:32]
    found = _read(place)
    if found is not None:
        return found
    images, labels = make()
    split = Split.of(torch.from_numpy(images), torch.from_numpy(labels))
    with contextlib.suppress(OSError):  # a full or read-only disk: this run goes on without
        _write(place, images, labels, split.fingerprint)
        return _read(place) or split
    return split


def cached_images(
    decided: Any, shape: tuple[int, ...], labels: NDArray[np.int64], fill: Callable[[Images], None]
) -> Split:
    """A split of many images, decoded straight into the file that is kept, so that it need not fit into memory.

    Args:
        decided: all that decides the pixels, JSON-ready.
        shape: of the images, ``(N, H, W, 3)``.
        labels: ``(N,)``.
        fill: writes the images into the array that it is given.

    Raises:
        TaskError: whatever ``fill`` finds wrong; nothing is kept then.
    """
    versions = [importlib.metadata.version(name) for name in ("pillow", "torchvision")]
    key = blake3(json.dumps([VERSION, *versions, "folder", decided], sort_keys=True).encode()).hexdigest()[:32]
    place = cache_folder() / "images" / key
    found = _read(place)
    if found is not None:
        return found
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent))
    except OSError:  # nowhere to keep them: in memory, for this run
        images = np.zeros(shape, np.uint8)
        fill(images)
        return Split.of(torch.from_numpy(images), torch.from_numpy(labels))
    try:
        needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(aside).free
        if needed > free:
            raise TaskError(
                f"{shape[0]:,} decoded images need {needed / 1e9:.1f} GB in {cache_folder()}, {free / 1e9:.1f} GB are "
                "free; name another folder with MERGING_CACHE"
            )
        images = np.lib.format.open_memmap(aside / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        fill(images)
        split = Split.of(torch.from_numpy(images), torch.from_numpy(labels))
        images.flush()
        np.save(aside / "labels.npy", labels)
        (aside / "split.json").write_text(json.dumps({"fingerprint": split.fingerprint}))
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _read(place) or split


def content_of(file: Path) -> str:
    """BLAKE3 of a file; remembered with its size and time of change, so that a large file is read once."""
    state = file.stat()
    known = blake3(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}".encode()).hexdigest()[:32]
    note = cache_folder() / "files" / known
    with contextlib.suppress(OSError):
        return note.read_text()
    digest = blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest()
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        _replace(note, digest)
    return digest


def _read(place: Path) -> Split | None:
    try:
        images = np.load(place / "images.npy", mmap_mode="c")  # shared pages; torch wants a writable array
        labels = np.load(place / "labels.npy")
        fingerprint = json.loads((place / "split.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):  # not there, or cut off: made again
        return None
    return Split(torch.from_numpy(images), torch.from_numpy(labels), fingerprint)


def _write(place: Path, images: Images, labels: NDArray[np.int64], fingerprint: str) -> None:
    """Aside first, then renamed: a folder that is there is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        np.save(aside / "images.npy", images)
        np.save(aside / "labels.npy", labels)
        (aside / "split.json").write_text(json.dumps({"fingerprint": fingerprint}))
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replace(note: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(note)

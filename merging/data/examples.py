"""Small sets of pictures, on which the contracts try what reads them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from merging.storage import atomic

CLASSES = ("cat", "dog", "owl")
"""Names of the classes of all these sets, in the order of their numbers."""


def pixels(count: int, *, side: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures of random colours, uint8, shape ``(count, side, side, 3)``."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def numbers(count: int, classes: int = len(CLASSES)) -> NDArray[np.int64]:
    """Labels that count through the classes, shape ``(count,)``."""
    return np.arange(count, dtype=np.int64) % classes


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as the bytes of a PNG file, which loses nothing."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def write_pictures(folder: Path, pictures: NDArray[np.uint8]) -> list[str]:
    """Writes ``0.png``, ``1.png``, … into a folder, which is made; returns these names."""
    atomic.make_folder(folder)
    for number, picture in enumerate(pictures):
        atomic.write(folder / f"{number}.png", png(picture))
    return [f"{number}.png" for number in range(len(pictures))]


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays as NumPy's ``.npz``."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in arrays.items():
            out = io.BytesIO()
            np.save(out, np.asarray(array))
            archive.writestr(f"{name}.npy", out.getvalue())
    atomic.write(path, whole.getvalue())


def given() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Nine pictures and their labels, as a function of a user's own returns them."""
    return pixels(9), numbers(9)

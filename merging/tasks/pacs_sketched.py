"""The photos of PACS from which its sketches were drawn: 434 ImageNet images are in the set as photo and as sketch.

Which they are is known from the names that the files had (``pacs_sketched.json``, whose ``source`` says how): photo
``n02103406_1011.jpg`` is the image that ``n02103406_1011-1.png`` was drawn from. An ``.npz`` has no names, so the list
counts images, and holds for one file: that with the same photos in the same order, which labels and sizes tell.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import TaskError


@functools.cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("pacs_sketched.json").read_text("utf-8"))
    return content


def sketched() -> dict[int, str]:
    """Number of a photo, in the order of ``pacs96.npz`` → its ImageNet name, of those from which a sketch was drawn."""
    return {int(number): name for number, name in _content()["sketched"].items()}


def others(file: Path, photos: int) -> NDArray[np.int64]:
    """Numbers of the photos from which no sketch was drawn, ascending.

    Args:
        file: the ``.npz`` with the domains.
        photos: how many photos could be read from it.

    Raises:
        TaskError: its photos are not those that the list counts.
    """
    known, digest = _content(), hashlib.sha256()
    with np.load(file, allow_pickle=False) as arrays:
        for name in ("photo_labels", "photo_offsets"):
            digest.update(np.asarray(arrays.get(name, ()), dtype="<i8").tobytes())
    if digest.hexdigest() != known["sha256"]:
        raise TaskError(
            f"without_sketched counts the {known['photos']:,} photos of pacs96.npz, and {file} has others, or in "
            "another order or size; leave it out"
        )
    if photos != known["photos"]:
        raise TaskError(
            f"without_sketched counts the {known['photos']:,} photos of pacs96.npz, and {photos:,} of {file} can be "
            "decoded; get the file again"
        )
    return np.setdiff1d(np.arange(photos), list(sketched()))

"""What may be meant where checkpoints do not say it: another library's model of the same tensors, other pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from merging.data.folders import walked
from merging.data.images import STORED
from merging.errors import MergingError
from merging.models.source import ModelSource
from merging.models.transform import IMAGENET, Normalisation

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NORMALISATIONS = {"ImageNet's": IMAGENET, "one half": HALF, "CLIP's": CLIP, "none": PLAIN}
"""Mean and standard deviation that models are trained with; PLAIN: pixels between 0 and 1."""


def own_normalisation(source: ModelSource) -> Normalisation | None:
    """Mean and deviation that a library gives a model; None: its preprocessing does not come apart."""
    try:
        return source.transform().normalisation
    except MergingError:
        return None


def normalisations(source: ModelSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Others than a model's own: a name in words, and keys of a [task]."""
    own = own_normalisation(source)
    for name, (mean, std) in NORMALISATIONS.items() if own is not None else ():
        if (
            own is not None
            and max(abs(a - b) for a, b in zip((*mean, *std), (*own.mean, *own.std), strict=True)) > 1e-3
        ):
            yield f"normalisation: {name}", {"mean": list(mean), "std": list(std)}


def sizes(source: ModelSource, held_out: str | Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Other sizes of images than a model's own: as they are stored, where all have one size and it is small.

    Args:
        source: the model.
        held_out: the set, as merge.toml names it.
    """
    path = Path(str(held_out if isinstance(held_out, str) else held_out["path"])).expanduser()
    if source.sides is None or not path.is_dir() or source.fixed_size:
        return
    from PIL import Image

    found = set[tuple[int, int]]()
    for file in islice(walked(path), 64):
        try:
            with Image.open(file) as picture:
                found.add(picture.size)
        except OSError:
            continue
    if len(found) == 1 and (width := next(iter(found)))[0] < source.sides[1] and width[1] < source.sides[0]:
        yield f"images as they are stored, {width[0]} × {width[1]}", {"size": STORED}

"""The task ``imagenet-shifts``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import tasks

if TYPE_CHECKING:
    from merging.plugins.progress import Progress
    from merging.plugins.task import Task


def _tiny(folder: Path) -> Mapping[str, Any]:
    from merging.data.examples import pixels, write_pictures

    for place, count in (("imagenet/train", 27), ("imagenet/val", 2), ("sketch", 2)):
        for seed, wordnet in enumerate(("n01440764", "n01443537")):
            write_pictures(folder / place / wordnet, pixels(count, seed=seed))
    return {"data": str(folder), "model": "torchvision:squeezenet1_1"}


@tasks.register(
    "imagenet-shifts",
    summary="ImageNet and the five test sets under shift of the model-soups papers",
    formula="held-out: 26 training images of every class, as model-soups' index file says or drawn with a fixed seed",
    limits="The data are not shipped: data names the folder that holds imagenet/train, imagenet/val and the others.",
    paper="Wortsman et al. 2022, https://arxiv.org/abs/2203.05482",
    sets=("held-out", "test", "imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"),
    tiny=_tiny,
)
def imagenet_shifts(
    data: str | Path | None = None,
    model: str = "open_clip:ViT-B-32-quickgelu",
    held_out: str | Path | None = None,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Scores models of a thousand classes on ImageNet and, as far as they are there, V2, R, Sketch, A and ObjectNet.

    Args:
        data: folder that holds ``imagenet/train`` and ``imagenet/val``, and the shifted sets' folders.
        model: the architecture.
        held_out: model-soups' ``imagenet_98_idxs.npy``; none: 26 images of each class, drawn with a fixed seed.
        corrupt: share of a set's images that may be damaged; none: 1 %.
        progress: told how far decoding is.
    """
    from merging.tasks.imagenet import imagenet_shifts as load

    return load(data, model, held_out, corrupt=corrupt, progress=progress)

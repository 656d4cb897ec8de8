"""The task ``cifar10-shifts``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import tasks

if TYPE_CHECKING:
    from merging.plugins.progress import Progress
    from merging.plugins.task import Task


def _tiny(folder: Path) -> Mapping[str, Any]:
    from merging.data.examples import numbers, pixels, write_npz
    from merging.tasks.cifar10 import FILES, SHIFTS

    arrays: dict[str, Any] = {"classes": [f"class {number}" for number in range(10)]}
    for name, count in (("train", 100), ("test", 40)):
        arrays |= {f"{name}_images": pixels(count, side=32), f"{name}_labels": numbers(count, 10)}
    write_npz(folder / FILES[0], arrays)
    shifted: dict[str, Any] = {"classes": arrays["classes"]}
    for seed, name in enumerate(SHIFTS):
        shifted |= {f"{name}_images": pixels(16, side=32, seed=seed), f"{name}_labels": numbers(16, 8)}
    write_npz(folder / FILES[1], shifted)
    return {"data": str(folder), "model": "torchvision:squeezenet1_1"}


@tasks.register(
    "cifar10-shifts",
    summary="CIFAR-10, its test images in halves (held-out and test), and four sets of the same classes under shift",
    formula="held-out and test: halves of the test images of every class, drawn by split_seed; train: all other images",
    limits="The data are not shipped: data names a folder with cifar10.npz and cifar10_shifts.npz. The test has 5,000 "
    "images, because public checkpoints know all training images: a part of those would be no held-out data.",
    paper="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf; "
    "Geirhos et al. 2019, https://arxiv.org/abs/1811.12231",
    sets=("held-out", "test", "tin_balanced", "tvs_edges", "tvs_silhouettes", "tvs_cueconflict"),
    tiny=_tiny,
)
def cifar10_shifts(
    data: str | Path | None = None,
    model: str | None = None,
    size: int | None = None,
    split_seed: int = 0,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Scores models of ten classes on photographs, edges, silhouettes and conflicting textures.

    Held-out and test part are halves of the test images, because public checkpoints know all training images. A shifted
    set that covers some of the ten classes is scored with the logits restricted to them.

    Args:
        data: folder with ``cifar10.npz`` and ``cifar10_shifts.npz``.
        model: the architecture.
        size: side to which images are brought, in pixels; none: 32 as they are, where the model takes that.
        split_seed: seed by which the test images are divided into held-out and test part.
        corrupt: share of a set's images that may be damaged; none: 1 %.
        progress: told how far decoding is.
    """
    from merging.tasks.cifar10 import cifar10_shifts as load

    return load(data, model, size, split_seed=split_seed, corrupt=corrupt, progress=progress)

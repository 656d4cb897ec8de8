"""The task ``pacs``."""

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
    from merging.tasks.pacs import SHIFTS, SOURCE

    arrays: dict[str, Any] = {}
    for seed, domain in enumerate((*SOURCE, *SHIFTS)):
        arrays |= {f"{domain}_images": pixels(35, side=32, seed=seed), f"{domain}_labels": numbers(35, 7)}
    write_npz(folder / "pacs.npz", arrays)
    return {"data": str(folder / "pacs.npz")}


@tasks.register(
    "pacs",
    summary="photos and art paintings; cartoons and sketches as natural shifts",
    formula="held-out and test: 20 % each of every class of the photos and of the paintings, drawn with a fixed seed",
    limits="The data are not shipped: data names a file with the four domains, in the layout of .npz sets.",
    paper="Li et al. 2017, https://arxiv.org/abs/1710.03077",
    sets=("held-out", "test", "cartoon", "sketch"),
    tiny=_tiny,
)
def pacs(
    data: str | Path | None = None,
    model: str = "torchvision:squeezenet1_1",
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Scores models of seven classes on photos and paintings, and under shift on cartoons and sketches.

    Args:
        data: file with the four domains, such as ``pacs96.npz``.
        model: the architecture.
        corrupt: share of a domain's images that may be damaged; none: 1 %.
        progress: told how far decoding is.
    """
    from merging.tasks.pacs import pacs as load

    return load(data, model, corrupt=corrupt, progress=progress)

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
    from merging.tasks.pacs import DOMAINS

    arrays: dict[str, Any] = {}
    for seed, domain in enumerate(DOMAINS):
        arrays |= {f"{domain}_images": pixels(35, side=32, seed=seed), f"{domain}_labels": numbers(35, 7)}
    write_npz(folder / "pacs.npz", arrays)
    return {"data": str(folder / "pacs.npz")}


@tasks.register(
    "pacs",
    summary="photos and art paintings; cartoons and sketches as natural shifts; or other domains of PACS as the source",
    formula="held-out and test: 20 % each of every class of every source domain, drawn by split_seed; train: the rest",
    limits="The data are not shipped: data names a file with the four domains, in the layout of .npz sets. Sketches "
    "were drawn from 434 of the photos: where one of photo and sketch is a source and the other a shift, say "
    "without_sketched. It counts the photos of pacs96.npz, which have no names there, and refuses others.",
    paper="Li et al. 2017, https://arxiv.org/abs/1710.03077",
    sets=("held-out", "test", "photo", "art_painting", "cartoon", "sketch"),
    tiny=_tiny,
)
def pacs(
    data: str | Path | None = None,
    model: str = "torchvision:squeezenet1_1",
    source: tuple[str, ...] = ("photo", "art_painting"),
    split_seed: int = 0,
    without_sketched: bool = False,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Scores models of seven classes on the source's domains, and under shift on the others.

    Args:
        data: file with the four domains, such as ``pacs96.npz``.
        model: the architecture.
        source: domains that are learned from, of photo, art_painting, cartoon and sketch; the others are shifts.
        split_seed: seed by which the parts of the source are drawn; a domain's do not depend on the other domains.
        without_sketched: whether the 434 photos from which a sketch was drawn are left out.
        corrupt: share of a domain's images that may be damaged; none: 1 %.
        progress: told how far decoding is.
    """
    from merging.tasks.pacs import pacs as load

    return load(
        data,
        model,
        source=source,
        split_seed=split_seed,
        without_sketched=without_sketched,
        corrupt=corrupt,
        progress=progress,
    )

"""PACS: some of its four domains as the source, the others as natural shifts (Li et al. 2017).

Held-out, test and training parts of the source are drawn within each domain and class. A domain's parts are the same
for the same seed, whichever domains are the source, and an image is in the same part whether or not others are left
out: what one task holds out of a domain, no model has seen that was trained on it in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from merging.data.images import Preparation, normalise
from merging.data.npz import load_npz
from merging.data.parts import drawn
from merging.errors import TaskError, unknown
from merging.models.catalogue import model_source
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split, Task
from merging.tasks.own_data import checked_seed, place, tolerated
from merging.tasks.pacs_sketched import others
from merging.values.wording import plural

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
"""The four domains, in the order in which tasks have them and :func:`parts_of` counts them."""
SOURCE = DOMAINS[:2]
"""The source, where nobody says another."""
SHARE = 0.2
"""Share of the source that is held out; the test takes as much again."""


def pacs(
    data: str | Path | None = None,
    model: str = "torchvision:squeezenet1_1",
    *,
    source: Sequence[str] = SOURCE,
    split_seed: int = 0,
    without_sketched: bool = False,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Makes the task of PACS (https://arxiv.org/abs/1710.03077).

    Args:
        data: ``pacs96.npz``, all four domains in the layout of :mod:`merging.data.npz`.
        model: the architecture.
        source: the domains that are learned from, one to three of :data:`DOMAINS` in any order; the others are shifts.
        split_seed: seed by which the parts of the source are drawn.
        without_sketched: whether the photos from which a sketch was drawn are left out, as they need to be where photos
            and sketches are on different sides (:mod:`merging.tasks.pacs_sketched`).
        corrupt: share of a domain's images that may be damaged; None: 1 %.
        progress: told how far decoding is, and what was left out.

    Raises:
        TaskError: no such file or domain, another layout, no domain left for a shift, a negative seed, or photos other
            than those that are known to have been sketched.
    """
    file = place("pacs", data, "the file with the four domains, such as pacs96.npz")
    chosen, checked = _source(source), checked_seed(split_seed)
    architecture, news = model_source(model), progress or Silent()
    stored = Preparation(corrupt=tolerated(corrupt))
    domains = {name: load_npz(f"{file}:{name}", stored, progress=progress) for name in DOMAINS}
    kept: dict[str, NDArray[np.int64]] = {}
    name = "pacs"
    if chosen != SOURCE:
        name += f" ({', '.join(chosen)})"
    if checked:
        name += f", split {checked}"
    if without_sketched:
        photos = len(domains["photo"])
        kept["photo"] = others(file, photos)
        gone = plural(photos - len(kept["photo"]), "photo")
        news.say(f"{gone} from which a sketch was drawn left out")
        name += f", without {gone} that were sketched"
    parts = {domain: parts_of(domain, domains[domain].labels.numpy(), checked) for domain in chosen}

    def together(part: str) -> Split:
        index = {domain: _of_those(parts[domain][part], kept.get(domain)) for domain in chosen}
        inputs = torch.cat([domains[domain].tensor[rows] for domain, rows in index.items()])
        return Split.of(inputs, torch.cat([domains[domain].labels[rows] for domain, rows in index.items()]))

    shifts = {domain: split for domain, split in domains.items() if domain not in chosen}
    shifts |= {domain: shifts[domain].part(torch.from_numpy(rows)) for domain, rows in kept.items() if domain in shifts}
    return Task(
        name=name,
        build=architecture.build,
        fresh=architecture.module,
        held_out=together("held-out"),
        tests={"test": together("test"), **shifts},
        shifts=tuple(shifts),
        prepare=normalise(architecture.transform()),
        train=together("train"),
    )


def parts_of(domain: str, labels: NDArray[np.int64], split_seed: int) -> Mapping[str, NDArray[np.int64]]:
    """Numbers of a domain's images that are held out, of the test and for training.

    They depend on the domain and the seed alone. Seed 0 is the draw by the domain's number in :data:`DOMAINS`: numpy
    fills a seed of several words up with zeros, so that ``(number, 0)`` is ``number``.

    Args:
        domain: one of :data:`DOMAINS`.
        labels: class indices of all its images, shape ``(N,)``.
        split_seed: seed of the draw.
    """
    bounds = {"held-out": (0.0, SHARE), "test": (SHARE, 2 * SHARE), "train": (2 * SHARE, 1.0)}
    return drawn(labels, bounds, (DOMAINS.index(domain), split_seed))


def _source(given: Sequence[str]) -> tuple[str, ...]:
    """The source's domains, in the order of :data:`DOMAINS`.

    Raises:
        TaskError: none, all, one of them twice, or a name that is none of theirs.
    """
    for name in given:
        if name not in DOMAINS:
            all_four = f"they are {', '.join(DOMAINS)}"
            raise unknown("domain of PACS in source:", name, DOMAINS, all_four, error=TaskError)
    if len(set(given)) < len(given):
        raise TaskError(f"source names a domain of PACS twice: {', '.join(given)}; name each once")
    if not 0 < len(given) < len(DOMAINS):
        what = "all domains of PACS, and none is left for a shift" if given else "no domain of PACS"
        raise TaskError(f"source names {what}; name one to three of {', '.join(DOMAINS)}")
    return tuple(name for name in DOMAINS if name in given)


def _of_those(rows: NDArray[np.int64], kept: NDArray[np.int64] | None) -> torch.Tensor:
    """Rows as an index; of them those that are kept, where some are not."""
    return torch.from_numpy(rows if kept is None else np.intersect1d(rows, kept))

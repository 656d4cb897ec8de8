"""PACS: photos and art paintings as the source, cartoons and sketches as natural shifts (Li et al. 2017).

Held-out, test and training parts of the source are drawn within each domain and class, with a fixed seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from merging.errors import TaskError
from merging.interfaces import Progress
from merging.models.catalogue import model_source
from merging.task import Split, Task
from merging.tasks.npz import Normalise, load_npz

SOURCE, SHIFTS = ("photo", "art_painting"), ("cartoon", "sketch")
SHARE = 0.2
"""Of the source: held-out, and as much again for the test."""


def pacs(
    data: str | Path | None = None, model: str = "torchvision:squeezenet1_1", *, progress: Progress | None = None
) -> Task:
    """The task (https://arxiv.org/abs/1710.03077).

    Args:
        data: ``pacs96.npz``, all four domains in the layout of :mod:`merging.tasks.npz`.
        model: the architecture.
        progress: told how far decoding is.

    Raises:
        TaskError: no such file, or another layout.
    """
    if data is None:
        raise TaskError("the task 'pacs' needs [task] data: the file with the four domains, such as pacs96.npz")
    source = model_source(model)
    domains = {name: load_npz(f"{data}:{name}", progress=progress) for name in (*SOURCE, *SHIFTS)}
    parts = {name: _divided(domains[name], number) for number, name in enumerate(SOURCE)}

    def together(part: str) -> Split:
        chosen = [(domains[name], torch.from_numpy(parts[name][part])) for name in SOURCE]
        inputs = torch.cat([split.inputs[index] for split, index in chosen])
        return Split.of(inputs, torch.cat([split.labels[index] for split, index in chosen]))

    return Task(
        name="pacs",
        build=source.build,
        fresh=source.module,
        held_out=together("held-out"),
        tests={"test": together("test"), **{name: domains[name] for name in SHIFTS}},
        shifts=SHIFTS,
        prepare=Normalise(source.preprocessing.mean, source.preprocessing.std),
        train=together("train"),
    )


def _divided(split: Split, seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of the parts: drawn at random within each class, then in the order in which they are stored."""
    labels = split.labels.numpy()
    mixed = np.random.default_rng(seed).permutation(len(labels))
    ordered = mixed[np.argsort(labels[mixed], kind="stable")]
    rank = np.arange(len(ordered)) - np.searchsorted(labels[ordered], labels[ordered])
    share = rank / np.bincount(labels)[labels[ordered]]
    bounds = {"held-out": (0.0, SHARE), "test": (SHARE, 2 * SHARE), "train": (2 * SHARE, 1.0)}
    return {name: np.sort(ordered[(share >= low) & (share < high)]) for name, (low, high) in bounds.items()}

"""PACS: photos and art paintings as the source, cartoons and sketches as natural shifts (Li et al. 2017).

Held-out, test and training parts of the source are drawn within each domain and class, with a fixed seed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from merging.data.images import Preparation, normalise
from merging.data.npz import load_npz
from merging.data.parts import drawn
from merging.models.catalogue import model_source
from merging.plugins.progress import Progress
from merging.plugins.task import Split, Task
from merging.tasks.own_data import place, tolerated

SOURCE, SHIFTS = ("photo", "art_painting"), ("cartoon", "sketch")
SHARE = 0.2
"""Of the source: held-out, and as much again for the test."""


def pacs(
    data: str | Path | None = None,
    model: str = "torchvision:squeezenet1_1",
    *,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """The task (https://arxiv.org/abs/1710.03077).

    Args:
        data: ``pacs96.npz``, all four domains in the layout of :mod:`merging.data.npz`.
        model: the architecture.
        corrupt: share of a domain's images that may be damaged; None: 1 %.
        progress: told how far decoding is.

    Raises:
        TaskError: no such file, or another layout.
    """
    file = place("pacs", data, "the file with the four domains, such as pacs96.npz")
    source = model_source(model)
    stored = Preparation(corrupt=tolerated(corrupt))
    domains = {name: load_npz(f"{file}:{name}", stored, progress=progress) for name in (*SOURCE, *SHIFTS)}
    bounds = {"held-out": (0.0, SHARE), "test": (SHARE, 2 * SHARE), "train": (2 * SHARE, 1.0)}
    parts = {name: drawn(domains[name].labels.numpy(), bounds, seed) for seed, name in enumerate(SOURCE)}

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
        prepare=normalise(source.transform()),
        train=together("train"),
    )

"""CIFAR-10 and four test sets under shift: another source of photographs, edges, silhouettes, conflicting textures.

Held-out and test part are halves of the test images, drawn within each class. A part of the training images would be no
held-out data: public checkpoints of CIFAR-10 have been trained on all of them (a ResNet-20 has 86 % there, 82 % on the
test images), and what is selected by images that the models know is selected for how well they remember. ``train`` is
therefore every training image. A shifted set that covers some of the ten classes is scored with the logits restricted
to them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from merging.data.images import normalise, preparation
from merging.data.npz import names_and_labels
from merging.data.opening import load_data
from merging.data.parts import drawn
from merging.errors import TaskError
from merging.models.catalogue import model_source
from merging.plugins.progress import Progress
from merging.plugins.task import Split, Task, identity
from merging.tasks.own_data import checked_seed, place, tolerated

SHIFTS = ("tin_balanced", "tvs_edges", "tvs_silhouettes", "tvs_cueconflict")
"""Images of the same classes from Tiny-ImageNet, and of Geirhos et al. (2019), https://arxiv.org/abs/1811.12231."""
SHARE = 0.5
"""Share of the test images that is held out; the test is the rest."""
FILES = ("cifar10.npz", "cifar10_shifts.npz")


def cifar10_shifts(
    data: str | Path | None = None,
    model: str | None = None,
    size: int | None = None,
    *,
    split_seed: int = 0,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Makes the task (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf).

    Args:
        data: folder with ``cifar10.npz`` (sets ``train`` and ``test``) and ``cifar10_shifts.npz`` (those of
            :data:`SHIFTS`), in the layout of :mod:`merging.data.npz`.
        model: the architecture.
        size: side to which images are brought, in pixels; None: 32 as they are, where the model takes that.
        split_seed: seed by which the test images are divided into held-out and test part.
        corrupt: share of a set's images that may be damaged; None: 1 %.
        progress: told how far decoding is.

    Raises:
        TaskError: no such files, another layout, no model, or a negative seed.
    """
    root = place("cifar10-shifts", data, f"the folder that holds {' and '.join(FILES)}")
    if model is None:
        raise TaskError("the task 'cifar10-shifts' needs model: the architecture, such as timm:resnet18")
    source = model_source(model)
    for file in FILES:
        if not (root / file).is_file():
            raise TaskError(f"[task] data: {root} has no {file}")
    how = preparation(source, size, tolerated(corrupt))
    names, _ = names_and_labels(f"{root / FILES[0]}:train")

    def load(file: str, key: str, classes: str) -> Split:
        spec = {"path": f"{root / file}:{key}", "classes": classes}
        return load_data(spec, source, how=how, classes=names, restrict=True, progress=progress)

    test = load(FILES[0], "test", "all")
    bounds = {"held-out": (0.0, SHARE), "test": (SHARE, 1.0)}
    parts = drawn(test.labels.numpy(), bounds, checked_seed(split_seed))
    held_out, rest = (test.part(torch.from_numpy(parts[name])) for name in bounds)
    return Task(
        name="cifar10-shifts" + (f" (split {split_seed})" if split_seed else ""),
        build=source.build,
        fresh=source.module,
        held_out=held_out,
        tests={"test": rest, **{name: load(FILES[1], name, "own") for name in SHIFTS}},
        shifts=SHIFTS,
        prepare=normalise(how.transform) if how.transform.divided else identity,
        train=load(FILES[0], "train", "all"),
        classes=names or (),
    )

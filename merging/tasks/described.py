"""A task from the [task] part of merge.toml: a model's name and ``.npz`` data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merging.errors import TaskError
from merging.interfaces import Progress
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.task import Split, Task
from merging.tasks.catalogue import load_task
from merging.tasks.npz import Normalise, Resize, load_npz


def described_task(table: Mapping[str, Any], progress: Progress | None = None) -> Task:
    """The task that a [task] table describes.

    Args:
        table: ``name`` of a registered task with what that takes; or ``model``, ``held_out`` and perhaps ``test``,
            ``shifts`` (name → data), ``train``; ``mean`` and ``std`` per channel and ``size`` in pixels (default: the
            model's own, see :func:`_resize`).
        progress: told how far decoding is.

    Raises:
        TaskError: a model or a data set that does not exist.
    """
    if table.get("name"):
        rest = {key: value for key, value in table.items() if key != "name"}
        return load_task(table["name"], progress, **rest)
    source = model_source(table["model"])
    own = source.preprocessing
    mean, std = table.get("mean") or own.mean, table.get("std") or own.std
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise TaskError("mean and std need three numbers each, std above 0")
    resize, always = _resize(source, table.get("size"))

    def load(data: str) -> Split:
        return load_npz(data, resize, always=always, progress=progress)

    shifts = dict(table.get("shifts", {}))
    if table.get("test") and "test" in shifts:
        raise TaskError("a shifted set is called 'test', as the test set is; give it another name")
    tests = ({"test": table["test"]} if table.get("test") else {}) | shifts
    return Task(
        name=table["model"],
        build=source.build,
        fresh=source.module,
        held_out=load(table["held_out"]),
        tests={name: load(data) for name, data in tests.items()},
        shifts=tuple(shifts),
        prepare=Normalise(tuple(mean), tuple(std)),
        train=load(table["train"]) if table.get("train") else None,
    )


def _resize(source: ModelSource, size: int | None) -> tuple[Resize | None, bool]:
    """How images are brought to size, and whether always.

    A model that takes one size only gets it. Others take the images as they are stored (a convolutional network at
    96 pixels costs a fifth of what it does at 224), unless they differ in size, or ``size`` says otherwise.
    """
    own = source.preprocessing
    if size is None:
        if own.size is None or own.resize is None:
            return None, False
        return Resize(own.size, own.resize, own.interpolation), source.fixed_size
    if size < 1:
        raise TaskError(f"size is {size}; it is the images' side in pixels, 1 or more")
    if own.size is not None and size != own.size and source.fixed_size:
        raise TaskError(f"size is {size}, but {source.spec} takes images of {own.size} pixels only; leave size out")
    margin = (own.resize or 1) / (own.size or 1) if own.size else 1.0
    return Resize(size, round(size * margin), own.interpolation), True

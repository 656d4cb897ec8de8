"""A task from the [task] part of merge.toml: a model's name and ``.npz`` data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merging.errors import TaskError
from merging.models.catalogue import model_builder
from merging.task import Task
from merging.tasks.npz import Normalise, load_npz

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


def described_task(table: Mapping[str, Any]) -> Task:
    """The task that a [task] table describes.

    Args:
        table: ``model``, ``held_out`` and perhaps ``test``, ``shifts`` (name → data), ``train``, and ``mean`` and
            ``std`` per channel (default: CLIP's for open_clip models, else ImageNet's).

    Raises:
        TaskError: a model or a data set that does not exist.
    """
    mean, std = _CLIP if table["model"].startswith("open_clip:") else _IMAGENET
    mean, std = table.get("mean") or mean, table.get("std") or std
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise TaskError("mean and std need three numbers each, std above 0")
    shifts = dict(table.get("shifts", {}))
    if table.get("test") and "test" in shifts:
        raise TaskError("a shifted set is called 'test', as the test set is; give it another name")
    tests = ({"test": table["test"]} if table.get("test") else {}) | shifts
    return Task(
        name=table["model"],
        build=model_builder(table["model"]),
        held_out=load_npz(table["held_out"]),
        tests={name: load_npz(source) for name, source in tests.items()},
        shifts=tuple(shifts),
        prepare=Normalise(tuple(mean), tuple(std)),
        train=load_npz(table["train"]) if table.get("train") else None,
    )

"""The state dict in what a training program wrote: the only mapping of tensors, or the one that is chosen."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.errors import CheckpointError, unknown
from merging.values.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

TOP = "."
"""The key of tensors that stand at the top of a file, beside a mapping of others."""
LIGHTNING = "pytorch-lightning_version"
"""The key by which a checkpoint of Lightning is known."""
_TRAINING = re.compile(
    r"(.*_)?optim(izer)?(s|_.*)?|opt_state.*|(lr_)?sched(uler)?(s|_.*)?|(grad_|loss_|amp_)?scaler(_.*)?|amp|callbacks|loops|"
    r"(.*_)?rng(_.*)?|(.*_)?random(_state)?s?",
    re.IGNORECASE,
)
"""Names of what a training program keeps for itself, tensors included: never the model."""


@dataclass(frozen=True)
class Found:
    """The state dict that a file holds.

    Attributes:
        tensors: the state dict, names as stored.
        notes: what was chosen and left out.
        lightning: whether Lightning wrote it.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    lightning: bool = False


@dataclass(kw_only=True)
class _Place:
    """A mapping that holds tensors directly, or a list of some."""

    where: tuple[str, ...]
    tensors: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    named: bool = True
    training: bool = False

    @property
    def key(self) -> str:
        return ".".join(self.where) or TOP

    @property
    def numbers(self) -> bool:
        """Whether they are single numbers all, such as a loss."""
        return all(tensor.numel() <= 1 for tensor in self.tensors.values())

    def same(self, other: _Place) -> bool:
        """Whether both are one state dict, pickled once and named twice."""
        return [(name, t.data_ptr(), t.shape) for name, t in self.tensors.items()] == [
            (name, t.data_ptr(), t.shape) for name, t in other.tensors.items()
        ]

    def __str__(self) -> str:
        if not self.named:
            return f"'{self.key}' (a list of {len(self.tensors)} tensors without names)"
        return f"'{self.key}' ({plural(len(self.tensors), 'tensor')})"


def state_dict_in(path: Path, content: Any, key: str) -> Found:
    """Finds the state dict among a file's mappings of tensors.

    Args:
        path: the file, for errors.
        content: all that is in it.
        key: key of the mapping that is the state dict, dotted where it is nested; empty: the only one that there is.

    Raises:
        CheckpointError: there is no state dict, or there are several of which none was chosen.
    """
    places = list(_places(content))
    lightning = isinstance(content, Mapping) and LIGHTNING in content
    models = [place for place in places if not place.numbers and not place.training]
    models = [place for index, place in enumerate(models) if not any(place.same(before) for before in models[:index])]
    models = models or [place for place in places if place.named and not place.training]
    if key:
        chosen = next((place for place in places if place.key == key and place.named), None)
        if chosen is None:
            there = [place.key for place in places if place.named]
            raise CheckpointError(f"{path}: {unknown('mapping of tensors', key, there)}")
    elif len(models) == 1 and models[0].named:
        chosen = models[0]
    elif not models:
        keys = f"; its keys: {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise CheckpointError(f"{path}: holds no state dict{keys}")
    else:
        named = [place.key for place in models if place.named]
        example = next((key for key in named if key in ("state_dict", "model")), named[0] if named else "KEY")
        raise CheckpointError(
            f"{path}: holds {len(models)} sets of tensors: {', '.join(map(str, models))}; choose one with "
            f"`key={example}`, or models = [{{ path = …, key = '{example}' }}]"
        )
    if chosen.arrays:
        raise CheckpointError(
            f"{path}: '{chosen.arrays[0]}' is a NumPy array beside tensors ({len(chosen.arrays)} such); make them "
            "tensors, then save again"
        )
    return Found(chosen.tensors, tuple(_notes(chosen, places)), lightning)


def _notes(chosen: _Place, places: Sequence[_Place]) -> Iterator[str]:
    if chosen.where:
        yield f"state dict found under '{chosen.key}'"
    beside = [place for place in places if place is not chosen and not place.same(chosen)]
    sets = [str(place) for place in beside if not place.numbers and any(map(_is_float, place.tensors.values()))]
    if sets:
        yield f"left out: {', '.join(sets)}"
    numbers = [name for place in beside if place.numbers and not place.training for name in place.tensors]
    if numbers:
        yield f"ignored single numbers: {', '.join(numbers[:5])}"
    if chosen.others:
        yield f"ignored what is not a tensor: {', '.join(chosen.others[:5])}"


def _is_float(tensor: Any) -> bool:
    return bool(tensor.is_floating_point())


def _places(
    content: Any, where: tuple[str, ...] = (), seen: set[int] | None = None, *, training: bool = False
) -> Iterator[_Place]:
    """Finds every mapping or list that holds tensors, marked where its name says that it is training state."""
    from torch import Tensor

    seen = set() if seen is None else seen
    if id(content) in seen and len(where) != 1:  # two names at the top may mean one state dict; deeper it is a knot
        return
    seen.add(id(content))
    if isinstance(content, argparse.Namespace | types.SimpleNamespace):
        content = vars(content)
    if isinstance(content, Mapping):
        if {"state", "param_groups"} <= set(map(str, content)):  # an optimizer's
            return
        entries = [(str(name), value) for name, value in content.items()]
    elif isinstance(content, list | tuple):
        entries = [(str(number), value) for number, value in enumerate(content)]
    else:
        return
    kept = [(name, value) for name, value in entries if not _is_random(name, value)]
    tensors = {name: value for name, value in kept if isinstance(value, Tensor)}
    if tensors:
        others = tuple(name for name, value in entries if name not in tensors)
        arrays = tuple(name for name, value in kept if isinstance(value, np.ndarray) and value.size > 1)
        yield _Place(
            where=where,
            tensors=tensors,
            others=others,
            arrays=arrays,
            named=isinstance(content, Mapping),
            training=training,
        )
    for name, value in kept:
        yield from _places(value, (*where, name), seen, training=training or bool(_TRAINING.fullmatch(name)))


def _is_random(name: str, value: Any) -> bool:
    """Whether an entry is the state of a random generator: bytes in a row, under a name that says so."""
    from torch import Tensor, uint8

    state = isinstance(value, Tensor) and value.dtype == uint8 and value.ndim == 1
    return state and bool(_TRAINING.fullmatch(name)) and "." not in name

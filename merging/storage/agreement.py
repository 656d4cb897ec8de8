"""What checkpoints have in common: they can be averaged, and which of their tensors are the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from merging.errors import PoolError
from merging.storage.alignment import check_rows
from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import common_dtype
from merging.storage.raw import same_bits
from merging.values.partition import TensorInfo


class Described(Protocol):
    """A model whose tensors are known by name, shape and dtype, whether it is on this machine or not."""

    @property
    def path(self) -> object:
        """The place of it, for messages."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo] | None:
        """Name → shape and dtype."""


def check_agreement(first: Described, other: Described, *, aligned: bool = False) -> None:
    """Refuses two checkpoints that differ in the names or shapes of their tensors, or in dtypes of several kinds.

    Of floating-point dtypes there is one that holds the numbers of both, in which they are merged.

    Args:
        first: one of them.
        other: the other one.
        aligned: whether numbers of rows may differ, which are still to be aligned by token.

    Raises:
        PoolError: names both files, and the first tensor in which they differ, or the token.
    """
    if isinstance(first, Checkpoint) and isinstance(other, Checkpoint) and other.tensors != first.tensors:
        check_rows(first, other)
    where, own, others = f"{other.path} and {first.path}", first.tensors or {}, other.tensors or {}
    missing = [name for name in own if name not in others]
    extra = [name for name in others if name not in own]
    if missing and extra:
        raise PoolError(
            f"{where} are different architectures: only the second has '{missing[0]}' ({len(missing)} such tensors), "
            f"only the first has '{extra[0]}' ({len(extra)})"
        )
    if missing or extra:
        side, name = ("misses", missing[0]) if missing else ("has an extra", extra[0])
        raise PoolError(f"{other.path} {side} tensor '{name}' (compared with {first.path})")
    for name, (shape, dtype) in own.items():
        other_shape, other_dtype = others[name]
        if shape != other_shape and not (aligned and shape[1:] == other_shape[1:]):
            raise PoolError(f"tensor '{name}' is {list(other_shape)} in {other.path} but {list(shape)} in {first.path}")
        if common_dtype((dtype, other_dtype)) is None:
            raise PoolError(
                f"tensor '{name}' is {other_dtype} in {other.path} but {dtype} in {first.path}; convert one of them"
            )


def kinds(model: Described) -> frozenset[tuple[str, tuple[int, ...], str]]:
    """Collects what models that fit together have in common: names, shapes, and dtypes, floating ones as one."""
    tensors = (model.tensors or {}).items()
    floating = {dtype for _, (_, dtype) in tensors if common_dtype((dtype, "float64")) is not None}
    return frozenset((name, shape, "floating" if dtype in floating else dtype) for name, (shape, dtype) in tensors)


def ties(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors that are one storage in every checkpoint, in the first one's order."""
    first, *others = (checkpoint.ties for checkpoint in checkpoints)
    return tuple(group for group in first if all(group in other for other in others))


def constant(checkpoints: Sequence[Checkpoint]) -> frozenset[str]:
    """Names of the tensors that are bit-equal in all checkpoints."""
    first, *others = checkpoints
    equal = set(first.tensors)
    for other in others:
        equal = {name for name in equal if same_bits(first.read(name), other.read(name))}
    return frozenset(equal)


def untuned(checkpoints: Sequence[Checkpoint], base: Checkpoint, averaged: Iterable[str]) -> dict[str, int]:
    """Models that keep most of their base's tensors, such as a linear probe.

    A model is read further only where its largest tensor is the base's own.

    Args:
        checkpoints: the models.
        base: the model that they were fine-tuned from.
        averaged: names of the tensors that are compared.

    Returns:
        Name of the model → how many tensors differ.
    """
    names = sorted(averaged, key=lambda name: (-math.prod(base.tensors[name][0]), name))
    found = dict[str, int]()
    for checkpoint in checkpoints:

        def same(name: str, own: Checkpoint = checkpoint) -> bool:
            return same_bits(own.read(name), base.read(name))

        if names and same(names[0]):
            differ = sum(not same(name) for name in names)
            if differ <= len(names) // 2:
                found[checkpoint.name] = differ
    return found

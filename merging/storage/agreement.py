"""What checkpoints have in common: they can be averaged, and which of their tensors are the same."""

from __future__ import annotations

from merging.errors import PoolError
from merging.storage.checkpoint import Checkpoint


def _check_agreement(first: Checkpoint, other: Checkpoint) -> None:
    where = f"{other.path} and {first.path}"
    missing = [name for name in first.tensors if name not in other.tensors]
    extra = [name for name in other.tensors if name not in first.tensors]
    if missing and extra:
        raise PoolError(
            f"{where} are different architectures: only the second has '{missing[0]}' ({len(missing)} such tensors), "
            f"only the first has '{extra[0]}' ({len(extra)})"
        )
    if missing or extra:
        side, name = ("misses", missing[0]) if missing else ("has an extra", extra[0])
        raise PoolError(f"{other.path} {side} tensor '{name}' (compared with {first.path})")
    for name, (shape, dtype) in first.tensors.items():
        other_shape, other_dtype = other.tensors[name]
        if shape != other_shape:
            raise PoolError(f"tensor '{name}' is {list(other_shape)} in {other.path} but {list(shape)} in {first.path}")
        if dtype != other_dtype:
            raise PoolError(
                f"tensor '{name}' is {other_dtype} in {other.path} but {dtype} in {first.path}; convert one of them"
            )

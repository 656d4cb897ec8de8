"""What goes from one stage of a model to the next: a tensor, or a tuple of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Carried: TypeAlias = "Tensor | tuple[Tensor, ...]"


def leaves(x: Carried) -> tuple[Tensor, ...]:
    """The tensors of which it consists."""
    return (x,) if isinstance(x, Tensor) else tuple(x)


def each(change: Callable[[Tensor], Tensor], x: Carried) -> Carried:
    """The same, every tensor changed."""
    return change(x) if isinstance(x, Tensor) else tuple(map(change, x))


def nbytes(x: Carried) -> int:
    """Bytes of all its tensors."""
    return sum(part.nbytes for part in leaves(x))


def same(a: Carried, b: Carried) -> bool:
    """Whether both have the same values, to the bit."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return len(leaves(a)) == len(leaves(b)) and all(torch.equal(x, y) for x, y in pairs)


def copied(x: Carried) -> Carried:
    """The same in memory of its own."""
    return each(Tensor.clone, x)


def detached(x: Carried) -> Carried:
    """The same without the graph behind it."""
    return each(Tensor.detach, x)


def compact(x: Carried) -> Carried:
    """The same without the storage of larger tensors that its tensors may be views of."""
    return each(lambda part: part if part.untyped_storage().nbytes() == part.nbytes else part.clone(), x)

"""Variances of BatchNorm in a merge: with negative coefficients a sum may fall below zero, where a model answers NaN.

Statistics that are measured again on training data need no bound. Where they are not, a variance keeps a tenth of the
smallest of those that it is made of; averages, whose coefficients are not negative, never come near that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 0.1
"""Share of the smallest variance that goes in, below which the merged one does not fall."""


def is_variance(name: str) -> bool:
    """Whether a tensor of that name holds running variances.

    >>> is_variance("body.1.running_var"), is_variance("body.1.running_mean")
    (True, False)
    """
    return name.rpartition(".")[2] == "running_var"


def bounded(name: str, coefficients: Iterable[float]) -> bool:
    """Whether a sum is one of variances that could fall to zero and below.

    Args:
        name: name of the tensor.
        coefficients: the coefficients of its terms.
    """
    return is_variance(name) and any(c < 0 for c in coefficients)


def bounded_below(merged: Tensor, variances: Sequence[Tensor]) -> Tensor:
    """Lifts merged variances to a tenth of the smallest of those that went in, element by element.

    Args:
        merged: the merged variances.
        variances: variances of the models that went in, of the same shape.
    """
    import torch

    return torch.maximum(merged, FLOOR * torch.stack([each.to(merged) for each in variances]).amin(0))

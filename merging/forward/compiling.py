"""A compiled model is trusted after its logits have been compared with the eager ones'."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from merging.errors import TaskError, raised

_CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a compiled model's logits may be from the eager ones, relative to the largest."""


def compiled(module: nn.Module, x: Tensor, dtype: str) -> Callable[[Tensor], Tensor]:
    """The compiled model, its logits compared with the eager ones'.

    Args:
        module: the model, in evaluation mode.
        x: a batch of its inputs, compared on.
        dtype: the dtype in which it runs: ``float32`` or ``bfloat16``.

    Raises:
        TaskError: it cannot be compiled here, or computes something else.
    """
    mode = "reduce-overhead" if x.is_cuda else None  # CUDA graphs
    made: Callable[[Tensor], Tensor] = torch.compile(module, mode=mode, dynamic=False)
    eager = module(x).float()
    try:
        with warnings.catch_warnings():  # of TF32, which fp32 here does without, and of its own empty first graph
            warnings.simplefilter("ignore", UserWarning)
            found = made(x).float()
    except Exception as error:  # compilers raise whatever is missing on this machine
        reason = raised(error)
        raise TaskError(f"the model cannot be compiled here ({reason}); leave out `compile`") from None
    apart, largest = float((found - eager).abs().max()), float(eager.abs().max())
    if not apart <= _CLOSE[dtype] * max(largest, 1e-6):
        raise TaskError(f"compiled, the model's logits are {apart:.3g} away from the eager ones; leave out `compile`")
    return made

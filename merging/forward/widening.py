"""A module whose weights are stored in 16 bits, run in fp32: each weight is widened as it is used, and dropped again.

So a pass in fp32 takes the memory of one layer more, not that of another model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_ASKED = ("shape", "device", "ndim", "layout", "is_cuda", "is_leaf", "requires_grad")
_ITSELF = frozenset(getattr(Tensor, name).__get__ for name in _ASKED) | {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_floating_point),
    *(getattr(Tensor, name).__set__ for name in ("data", "grad")),
}
"""What is asked of a weight without its values, or done to itself."""


class Widening(TorchFunctionMode):
    """Gives every torch function some tensors in fp32 that are stored otherwise, with the bits of a module in fp32.

    Rows of an embedding are widened after they were chosen. Gradients do not pass.

    Args:
        tensors: they are known by what they are, not by value; tied ones are one.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = {id(tensor): tensor for tensor in tensors if tensor.dtype != torch.float32}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        kwargs = kwargs or {}
        if func in _ITSELF:
            return func(*args, **kwargs)
        if func is embedding and kwargs.get("max_norm", args[3] if len(args) > 3 else None) is None:
            found = func(*args, **kwargs)
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            return found.float() if id(weight) in self._known else found
        return func(*tree_map(self._wide, args), **tree_map(self._wide, kwargs))

    def _wide(self, value: Any) -> Any:
        return value.detach().float() if id(value) in self._known else value


def can_widen(module: nn.Module) -> bool:
    """Whether a pass under :class:`Widening` takes the same kernels: torch's own attention looks for such modes."""
    return not any(isinstance(part, nn.MultiheadAttention | nn.TransformerEncoderLayer) for part in module.modules())

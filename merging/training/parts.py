"""Parts of a module that training treats by themselves: its head, its norm layers."""

from __future__ import annotations

from torch import nn

from merging.forward.head import head_layer


def head_of(module: nn.Module) -> frozenset[str]:
    """Names of the parameters of its head, see :func:`merging.forward.head.head_layer`; none where it has none."""
    found = head_layer(module)
    if found is None:
        return frozenset()
    name, part = found
    return frozenset(f"{name}.{own}" if name else own for own, _ in part.named_parameters())


def norms_of(module: nn.Module) -> frozenset[str]:
    """Names of the scales and shifts of all norm layers, known by torch's classes or by their class's name."""
    return frozenset(
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if "Norm" in type(part).__name__ or isinstance(part, nn.LayerNorm | nn.GroupNorm)
        for own, _ in part.named_parameters(recurse=False)
    )

"""Parts of a module that training treats by themselves: its head, its norm layers."""

from __future__ import annotations

from torch import nn


def head_of(module: nn.Module) -> frozenset[str]:
    """Names of the parameters of the last linear layer or convolution."""
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if not layers:
        return frozenset()
    name, part = layers[-1]
    return frozenset(f"{name}.{own}" if name else own for own, _ in part.named_parameters())


def norms_of(module: nn.Module) -> frozenset[str]:
    """Names of the scales and shifts of all norm layers, known by torch's classes or by their class's name."""
    return frozenset(
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if "Norm" in type(part).__name__ or isinstance(part, nn.LayerNorm | nn.GroupNorm)
        for own, _ in part.named_parameters(recurse=False)
    )

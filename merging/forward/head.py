"""The head of a module, which gives its logits: the last linear layer or convolution."""

from __future__ import annotations

from torch import nn


def head_layer(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and layer, by the order in which the module holds its parts; None where there is no such layer."""
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return layers[-1] if layers else None

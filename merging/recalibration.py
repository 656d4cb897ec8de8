"""BatchNorm statistics measured again: an average of models has activations that none of them had.

Averaged statistics are not those of the averaged weights (Izmailov et al. 2018, §3.3): they are replaced by what
training data shows, in one pass, as exact means over its batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SAMPLES = 2048
"""Training samples that statistics are measured on at the most; the same ones for every model."""


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """The layers that keep statistics, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    }


def statistics_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the tensors that :func:`recalibrate` measures."""
    return tuple(f"{name}.{kind}" for name in batch_norms(module) for kind in ("running_mean", "running_var"))


def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measures the statistics of every BatchNorm layer anew, in place; all else stays in evaluation mode.

    Args:
        module: its weights as they are.
        batches: model inputs, of equal size for exact means.
    """
    layers = list(batch_norms(module).values())
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = torch.tensor(0)  # a count of its own: the model's belongs to an ingredient
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average, not an exponential one
        layer.train()
    try:
        with torch.no_grad():
            for inputs in batches:
                module(inputs)
    finally:
        for layer, (momentum, tracked) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
            layer.eval()


@contextlib.contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Lets BatchNorm layers use each batch's own statistics, and leaves the kept ones alone."""
    layers = list(batch_norms(module).values())
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer in layers:
            layer.training, layer.track_running_stats = False, True

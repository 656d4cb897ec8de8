"""BatchNorm statistics measured again: an average of models has activations that none of them had.

Averaged statistics are not those of the averaged weights (Izmailov et al. 2018, §3.3): they are replaced by what
training data shows, in one pass, as exact means over its batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from merging.errors import TaskError

SAMPLES = 2048
"""Training samples that statistics are measured on at the most; the same ones for every model."""


def equal_batches(count: int, most: int) -> tuple[int, int]:
    """How samples are divided into batches of one size, of which each counts the same; a remainder is left out.

    >>> equal_batches(1000, 256), equal_batches(7, 3)
    ((250, 4), (2, 3))

    Args:
        count: samples there are, 1 or more.
        most: samples in a batch at the most.

    Returns:
        Samples in a batch, and how many batches.
    """
    batches = -(-count // most)
    return count // batches, batches


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


def recalibrate(module: nn.Module, batches: Iterable[Tensor], only: Collection[str] | None = None) -> frozenset[str]:
    """Measures the statistics of BatchNorm layers anew, in place; all else stays in evaluation mode.

    Args:
        module: its weights as they are.
        batches: model inputs, of equal size, because every batch counts the same.
        only: names of statistics (see :func:`statistics_of`) of the layers to measure; None: of all.

    Returns:
        Names of the statistics that were measured; a layer that the forward pass never reaches keeps its own.
    """
    layers = {
        name: layer for name, layer in batch_norms(module).items() if only is None or f"{name}.running_mean" in only
    }
    before = {name: (layer.momentum, layer.num_batches_tracked, _kept(layer)) for name, layer in layers.items()}
    for layer in layers.values():
        layer.num_batches_tracked = torch.tensor(0)  # a count of its own: the model's belongs to an ingredient
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average, not an exponential one
        layer.train()
    reached: set[str] = set()
    try:
        with torch.no_grad():
            for inputs in batches:
                with several_values():
                    module(inputs)
    finally:
        for name, layer in layers.items():
            momentum, tracked, kept = before[name]
            if layer.num_batches_tracked is not None and int(layer.num_batches_tracked) > 0:
                reached |= {f"{name}.running_mean", f"{name}.running_var"}
            else:
                for buffer, values in zip((layer.running_mean, layer.running_var), kept, strict=True):
                    if buffer is not None and values is not None:
                        buffer.copy_(values)
            layer.momentum, layer.num_batches_tracked = momentum, tracked
            layer.eval()
    return frozenset(reached)


@contextlib.contextmanager
def several_values() -> Iterator[None]:
    """Says in words that BatchNorm cannot normalise a single value a channel: one sample, in its own statistics.

    Raises:
        TaskError: a layer was given one.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TaskError(
            "BatchNorm needs at least two values a channel and was given a single sample: give more training data, "
            "batches of two or more, or leave statistics alone with --no-recalibrate"
        ) from None


def _kept(layer: _BatchNorm) -> tuple[Tensor | None, Tensor | None]:
    mean, var = layer.running_mean, layer.running_var
    return (None if mean is None else mean.clone(), None if var is None else var.clone())


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

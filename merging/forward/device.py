"""The one way to a device, for modules, batches and labels, in scoring as in training.

A module that is scored before anybody has moved it, or an index that stays behind, is an error on a GPU and on no CPU.
So whoever runs a module places it first, and nothing else in the package calls ``.to(device)``.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from merging.plugins.sequences import Sequences
from merging.plugins.task import Task, prepared

T = TypeVar("T", nn.Module, Tensor)


def on_device(what: T, device: str | torch.device, layout: str = "contiguous") -> T:
    """A module or a tensor on a device; what is there already is given back as it is.

    Args:
        what: a module, which is moved in place, or a tensor.
        device: the name of it, or that of a tensor it shall meet.
        layout: ``channels_last`` keeps the filters of a module's convolutions in that order.
    """
    if isinstance(what, nn.Module):
        what.to(device)
        if layout == "channels_last":
            what.to(memory_format=torch.channels_last)
        return what
    return what.to(device)


def sent(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Sends a tensor of the CPU to a device without waiting for what that is at: through pinned memory on CUDA."""
    if torch.device(device).type != "cuda":
        return on_device(tensor, device)
    return tensor.pin_memory().to(device, non_blocking=True)


def batch_for(
    task: Task, stored: Tensor | Sequences, device: str | torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Turns samples as they are stored into what a model takes: on its device, prepared there, in its precision.

    Args:
        task: knows how samples are prepared.
        stored: rows of a split's ``inputs``, as they are kept; sequences become one batch.
        device: the device that the model is on.
        dtype: the dtype that it runs in; None: that of what was prepared. Token ids and other integers stay what they
            are.
    """
    batch = stored.collated() if isinstance(stored, Sequences) else stored
    inputs = prepared(task, on_device(batch, device))
    return inputs.to(dtype) if dtype is not None and inputs.is_floating_point() else inputs

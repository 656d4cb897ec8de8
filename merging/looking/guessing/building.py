"""An architecture by its name, built without memory for its weights: names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from merging.errors import MergingError, TaskError, raised
from merging.models.source import ModelSource
from merging.values.partition import TensorInfo

CLASSES = 7
"""Outputs of a head whose number says nothing."""


def tensors_of(source: ModelSource) -> Mapping[str, TensorInfo]:
    """Names and shapes of the tensors of an architecture.

    Raises:
        TaskError: it cannot be built.
    """
    module = bare(lambda: source.module(CLASSES))
    return {name: (tuple(tensor.shape), "") for name, tensor in module.state_dict().items()}


def bare(build: Callable[[], nn.Module]) -> nn.Module:
    """Calls a constructor, on the meta device unless it looks at the values of its weights."""
    try:
        with torch.device("meta"):
            return build()
    except MergingError as error:
        if "meta" not in str(error):
            raise
    except Exception as error:  # constructors raise whatever they meet
        if "meta" not in str(error):
            raise TaskError(f"it cannot be built: {raised(error)}") from error
    return build()

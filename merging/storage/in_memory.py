"""State dicts and modules in memory, behind what a file of tensors can do: copied once, then read like any file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from merging.errors import CheckpointError, raised, showable
from merging.storage.dtypes import info_of
from merging.storage.plain_tensors import check_plain, place_of, ties_of
from merging.storage.raw import bytes_of
from merging.storage.tensor_file import TensorFile
from merging.values.wording import kind_of, some

if TYPE_CHECKING:
    from torch import Tensor, nn

    InMemory: TypeAlias = Mapping[str, Tensor] | nn.Module
    """A state dict, or a module, whose state dict is taken."""

MEMORY = "<memory>"
"""Folder, in messages, of what lies in none: no system has one of that name."""


class TensorsInMemory(TensorFile):
    """The tensors of a state dict or a module as they are now, on the CPU.

    They are copied, so that training which goes on changes nothing here: a model takes the memory of its tensors once
    more. Tensors that are one stay one.

    Args:
        model: the state dict, or a module.
        name: name of the model, for messages.

    Raises:
        CheckpointError: it is no state dict; what it is, and what to give instead.
    """

    format = "memory"
    suffixes = ()

    def __init__(self, model: InMemory, name: str) -> None:
        super().__init__(Path(f"{MEMORY}/{showable(name)}"))
        found = _state_dict(model, str(self.path))
        others = [key for key, value in found.items() if not _is_tensor(value)]
        tensors = {key: value for key, value in found.items() if key not in others}
        packed = next((key for key in others if _holds_tensors(found[key])), None)
        if packed is not None:
            raise CheckpointError(
                f"{self.path}: '{packed}' holds packed tensors, as those of quantised modules are; give the model from "
                "before they were packed"
            )
        for key, tensor in tensors.items():
            check_plain(f"{self.path}: tensor '{key}'", tensor)
        copies: dict[Any, Tensor] = {}
        self._copied: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            place = place_of(tensor) if tensor.numel() else key
            if place not in copies:
                copies[place] = _copy(tensor)
            self._copied[key] = copies[place]
            self.tensors[key] = info_of(tensor)
        self.ties = ties_of(self._copied)
        self.notes = (f"ignored what is not a tensor: {some(others, 5, counted=False)}",) if others else ()

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Recognises no file: there is none."""
        del path, head
        return False

    def state(self) -> tuple[int, ...]:
        """Is always the same: nobody else has the copy."""
        return ()

    def read(self, key: str) -> Tensor:
        """Gives one tensor, which is the caller's own, as that of a file is."""
        return self._copied[key].clone()

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes, in the order of its elements."""
        np.copyto(np.asarray(into), bytes_of(self._copied[key])[offset : offset + len(into)])


def is_in_memory(value: object) -> bool:
    """Whether a value is a module, or a mapping that holds tensors: nothing that is to be looked for on disk."""
    if isinstance(value, Mapping):
        return any(_is_tensor(each) for each in value.values())
    return _is_module(value)


def _is_tensor(value: object) -> bool:
    """Whether a value is a tensor; loads no torch where there cannot be one."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _holds_tensors(value: object) -> bool:
    """Whether a value that is no tensor has some in it."""
    if isinstance(value, list | tuple):
        return any(_is_tensor(each) or _holds_tensors(each) for each in value)
    return type(value).__name__ == "ScriptObject"  # of torch: the packed weights of a quantised module


def _is_module(value: object) -> bool:
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _copy(tensor: Tensor) -> Tensor:
    import torch

    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _state_dict(model: object, where: str) -> Mapping[str, Any]:
    """The state dict of a module, or the mapping itself where it is one.

    Raises:
        CheckpointError: it is something else.
    """
    way = "give a module or its state_dict()"
    if _is_module(model):
        try:
            found = model.state_dict()  # type: ignore[attr-defined]
        except Exception as error:  # a user's module may raise anything
            raise CheckpointError(f"state_dict() of {where} failed: {raised(error)}") from error
        return _checked(found, where, "is a module without tensors; nothing can be averaged")
    if not isinstance(model, Mapping):
        raise CheckpointError(f"{where} is {kind_of(model)}; {way}")
    if {"state", "param_groups"} <= set(map(str, model)):
        raise CheckpointError(f"{where} is an optimizer's state dict; {way}")
    inner = [str(key) for key, value in model.items() if isinstance(value, Mapping) and is_in_memory(value)]
    if inner:
        raise CheckpointError(
            f"{where} is a mapping with a state dict in it; give its {' or '.join(map(repr, inner[:3]))}"
        )
    array = next((key for key, value in model.items() if isinstance(value, np.ndarray)), None)
    if array is not None:
        raise CheckpointError(f"{where}: {str(array)!r} is a NumPy array; make it a tensor with torch.from_numpy")
    return _checked(model, where, f"is a mapping without tensors; {way}")


def _checked(found: Mapping[Any, Any], where: str, wrong: str) -> Mapping[str, Any]:
    if not any(_is_tensor(value) for value in found.values()):
        raise CheckpointError(f"{where} {wrong}")
    odd = next((key for key in found if not isinstance(key, str)), None)
    if odd is not None:
        raise CheckpointError(f"{where}: a tensor is called by {kind_of(odd)}; names are texts")
    return found

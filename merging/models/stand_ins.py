"""Modules that stand in the places of a model's blocks, so that what is before and after them runs alone."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


class NothingMoreError(Exception):
    """Ends a forward pass of which all has been seen."""


class Stand(nn.Module):
    """Stands in a block's place, and notes what that would be called with."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._block = (block,)  # hidden from nn.Module
        self.turn(0)

    def turn(self, length: int, *, last: bool = False, given: Tensor | None = None) -> None:
        """Forgets what was noted.

        Args:
            length: entries of the tuple that it gives; 0: no tuple.
            last: nothing is wanted of what follows.
            given: what it gives in place of what entered it.
        """
        self.__dict__.update(length=length, last=last, given=given, call=None, entered=None)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_block"][0], name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Notes, and gives the same or what it was told to."""
        self.__dict__.update(call=(args, kwargs), entered=hidden_states)
        if self.last:
            raise NothingMoreError
        found = hidden_states if self.given is None else self.given
        return (found, *[None] * (self.length - 1)) if self.length else found


def place_of_blocks(model: nn.Module) -> str | None:
    """Finds the path of the list of repeated blocks: the one with the most parameters."""
    found = [
        (sum(parameter.numel() for parameter in part.parameters()), path)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part)
    ]
    return max(found, key=lambda each: (each[0], -len(each[1])))[1] if found else None


def with_part(root: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """Gives the same module with another part at a place; everything else is shared."""
    name, _, rest = path.partition(".")
    twin = copy.copy(root)
    inner = root._modules[name]
    placed = with_part(inner, rest, part) if rest and inner is not None else part
    twin.__dict__["_modules"] = {**root._modules, name: placed}
    return twin

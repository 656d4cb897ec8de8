"""The interface of objectives that look at a whole model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from merging.plugins.options import Plugin

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WholeModelObjective(Plugin):
    """The way out for scores that are no function of one sample's logits (retrieval, generation): never staged."""

    @abstractmethod
    def measure(self, model: nn.Module, split: SplitView) -> float:
        """The score of a whole model on a split, larger is better."""


class SplitView(Protocol):
    """What a whole-model objective sees of a split: batches of (model inputs, labels) on the device."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

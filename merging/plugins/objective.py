"""The interfaces of objectives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from merging.plugins.options import Plugin

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Objective(Plugin):
    """Scores logits against labels; larger is better. No loop, no device: the evaluator has those.

    ``decomposable``: the score of a split is the mean of per-sample terms; ``bounds`` then limit one term, so
    that a threshold test may stop early (None: unbounded).
    """

    decomposable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Per-sample terms, shape ``(N,)``, of logits ``(N, classes)`` and labels ``(N,)`` int64."""

    @abstractmethod
    def reduce(self, terms: Tensor) -> float:
        """The score of all samples' terms (on the CPU, in the split's order)."""


@dataclass(frozen=True)
class WholeModelObjective(Plugin):
    """The way out for scores that are no function of one sample's logits (retrieval, generation): never staged."""

    @abstractmethod
    def measure(self, model: nn.Module, split: SplitView) -> float:
        """The score of a whole model on a split, larger is better."""


class SplitView(Protocol):
    """What a whole-model objective sees of a split: batches of (model inputs, labels) on the device."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

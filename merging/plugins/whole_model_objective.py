"""The interface of objectives that look at a whole model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from merging.plugins.options import Plugin
from merging.plugins.user_code import named, number, running

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WholeModelObjective(Plugin):
    """Base of objectives that look at the whole model, for scores that are no function of one sample's logits.

    Retrieval and generation are such; every evaluation is a whole pass, and none begins at a later stage.
    """

    @abstractmethod
    def measure(self, model: nn.Module, split: SplitView) -> float:
        """The score of a whole model on a split, larger is better."""


class SplitView(Protocol):
    """A split as a whole-model objective sees it: batches of (model inputs, labels) on the device."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


def measured(objective: WholeModelObjective, model: nn.Module, split: SplitView) -> float:
    """The score that an objective gives a whole model, as a number.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns something else.
    """
    with running(named("objective", objective), objective):
        found = objective.measure(model, split)
    return number(found, f"{named('objective', objective)}: measure", objective)

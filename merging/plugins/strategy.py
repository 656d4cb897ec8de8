"""The interface of strategies: how a pool becomes a merge."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from merging.errors import StrategyError
from merging.plugins.options import Plugin
from merging.plugins.user_code import kind_of, named, running
from merging.values.recipe import Merge

if TYPE_CHECKING:
    from merging.plugins.problem import Problem


NEEDS = frozenset({"base", "model", "objective", "train", "unlabelled", "gradients", "per_sample_gradients", "classes"})


@dataclass(frozen=True)
class MixStrategy(Plugin):
    """Turns a pool into a merge.

    ``needs`` says what must be there (a subset of ``NEEDS``), ``min_models`` how many checkpoints, ``gives`` what
    comes out (``recipe``, ``weights`` or ``ensemble``); the core checks all before any work begins. ``label`` is its
    name in tables, where that is another than the registered one.
    """

    label: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    min_models: ClassVar[int] = 1
    gives: ClassVar[str] = "recipe"
    ranks: ClassVar[bool] = True
    """Whether it scores every single model, where it needs an objective."""

    def parts(self) -> tuple[MixStrategy, ...]:
        """The strategies that are its options, such as the one that it works on top of."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if isinstance(value, MixStrategy))

    def requires(self) -> frozenset[str]:
        """What must be there for these very options: what it needs, and what its parts require."""
        return self.needs.union(*(part.requires() for part in self.parts()))

    def fewest(self) -> int:
        """How many models there must be, for it and for its parts."""
        return max([self.min_models, *(part.fewest() for part in self.parts())])

    def default_optimizer(self) -> str:
        """Name of the optimizer that its searches use where the user names none; its part's, where it has one."""
        return next((part.default_optimizer() for part in self.parts()), "nevergrad-cobyla")

    @abstractmethod
    def mix(self, problem: Problem) -> Merge:
        """The merge. Report decisions with ``problem.decide`` and the best so far with ``problem.keep``."""


def mixed(strategy: MixStrategy, problem: Problem) -> Merge:
    """What a strategy makes of a problem; for a strategy on top of another one, too.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns no merge.
    """
    who = named("strategy", strategy)
    with running(who, strategy):
        merged = strategy.mix(problem)
    if not isinstance(merged, Merge):
        raise StrategyError(f"{who} returned {kind_of(merged)}, not a Recipe, Weights or Ensemble")
    return merged

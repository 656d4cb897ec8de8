"""The interface of strategies: how a pool becomes a merge."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Set
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from merging.errors import StrategyError
from merging.plugins.options import Plugin
from merging.plugins.searched import is_placed, mixed_once, searched
from merging.plugins.user_code import file_of, kind_of, named, running
from merging.values.recipe import Merge

if TYPE_CHECKING:
    from merging.plugins.problem import Problem


WHOLE = "whole"
"""Partitioner of a strategy that has no other default."""
BLOCK = "block"
"""Partitioner of one whose numbers differ between components, where nobody names another."""
SCORED = frozenset({"model", "objective"})
"""Needs of a strategy that has a number searched for."""
NEEDS = frozenset(
    {"base", "model", "objective", "train", "unlabelled", "gradients", "per_sample_gradients", "classes", "likelihood"}
)


@dataclass(frozen=True)
class MixStrategy(Plugin):
    """Base of strategies: a frozen dataclass whose fields are options, and whose :meth:`mix` turns a pool into a merge.

    The core checks ``needs``, ``min_models`` and ``gives`` before any work begins.

    Attributes:
        label: the name in tables, where that is another than the registered one.
        needs: what must be there, a subset of ``NEEDS``: ``base`` (the model they were fine-tuned from), ``model``,
            ``objective`` (held-out data to score on), ``train``, ``unlabelled``, ``gradients``,
            ``per_sample_gradients``, ``classes`` (labels that are classes), ``likelihood`` (classes or documents).
        min_models: the fewest checkpoints that it can merge.
        gives: what comes out: ``recipe``, ``weights`` or ``ensemble``.
        control: name of the strategy that, with the same options, shows what this one's result is due to; a benchmark
            without it says so. Empty: none.
    """

    label: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    min_models: ClassVar[int] = 1
    gives: ClassVar[str] = "recipe"
    control: ClassVar[str] = ""
    ranks: ClassVar[bool] = True
    """Whether it scores every single model, where it needs an objective."""

    def parts(self) -> tuple[MixStrategy, ...]:
        """The strategies that are its options, such as the one that it works on top of."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if isinstance(value, MixStrategy))

    def requires(self) -> frozenset[str]:
        """Collects what must be there for these very options: its own ``needs``, and what its parts require.

        Where a number is searched for, a model and an objective too.
        """
        return self.needs.union(*(part.requires() for part in self.parts()), SCORED if searched(self) else ())

    def fewest(self) -> int:
        """The fewest models that it and its parts can merge."""
        return max([self.min_models, *(part.fewest() for part in self.parts())])

    def default_optimizer(self) -> str:
        """Name of the optimizer that its searches use where the user names none; its part's, where it has one."""
        return next((part.default_optimizer() for part in self.parts()), "nevergrad-cobyla")

    def default_partitioner(self) -> str:
        """Name of the partitioner that is used where the user names none; its part's, where it has one.

        ``block``, where an option has numbers by component or a ramp.
        """
        own = next((part.default_partitioner() for part in self.parts()), WHOLE)
        return BLOCK if own == WHOLE and is_placed(self) else own

    def default_number(self, option: str, problem: Problem) -> float | None:
        """The number that an option at ``none`` stands for, where it varies; also where a search for it starts.

        Args:
            option: name of the option.
            problem: what is merged.
        """
        del option, problem
        return None

    @abstractmethod
    def mix(self, problem: Problem) -> Merge:
        """Merges the pool of a problem; the one method that a strategy must have.

        Report decisions with ``problem.decide`` and the best so far with ``problem.keep``.

        Args:
            problem: the checkpoints, and ways to score a merge of them (:class:`merging.Problem`).

        Returns:
            A :class:`Recipe`, :class:`Weights` or :class:`Ensemble`, as ``gives`` says.
        """


def required(strategy: MixStrategy) -> frozenset[str]:
    """The needs of a strategy and of its parts, checked: its class may declare anything.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it declares what is no set of words.
    """
    who = named("strategy", strategy)
    _check_set(strategy.needs, f"needs of {who} is", strategy)
    with running(who, strategy):
        found = strategy.requires()
    _check_set(found, f"requires of {who} returned", strategy)
    return frozenset(found)


def own_optimizer(strategy: MixStrategy) -> str:
    """Name of the optimizer that a strategy's searches use where nobody names one, checked.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: what it gives is no name.
    """
    return _name(strategy, "default_optimizer")


def own_partitioner(strategy: MixStrategy) -> str:
    """Name of the partitioner that a strategy uses where nobody names one, checked.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: what it gives is no name.
    """
    return _name(strategy, "default_partitioner")


def _name(strategy: MixStrategy, method: str) -> str:
    """What a method of a strategy gives as a name."""
    who = named("strategy", strategy)
    with running(who, strategy):
        name = getattr(strategy, method)()
    if not isinstance(name, str):
        raise StrategyError(f"{method} of {who} returned {kind_of(name)}, not a name{file_of(strategy)}")
    return name


def _check_set(value: object, what: str, strategy: MixStrategy) -> None:
    """Refuses needs that are no set: a word alone would be taken for its letters."""
    if not isinstance(value, Set):
        raise StrategyError(f"{what} {kind_of(value)}, not a frozenset of words{file_of(strategy)}")


def mixed(strategy: MixStrategy, problem: Problem) -> Merge:
    """Runs a strategy on a problem, and checks that what it returns is a merge; strategies on top of others use it too.

    Numbers that its options leave to a search are found first (:mod:`merging.plugins.searched`).

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns no merge.
    """
    return mixed_once(strategy, problem, _mixed)


def _mixed(strategy: MixStrategy, problem: Problem) -> Merge:
    """Runs a strategy that has all its numbers."""
    who = named("strategy", strategy)
    with running(who, strategy):
        merged = strategy.mix(problem)
    if not isinstance(merged, Merge):
        raise StrategyError(f"{who} returned {kind_of(merged)}, not a Recipe, Weights or Ensemble{file_of(strategy)}")
    return merged

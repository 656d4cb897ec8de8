"""The numbers of an option that varies, for every model and tensor (:mod:`merging.plugins.varying` has the forms)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.errors import OptionError
from merging.plugins.options import options_of
from merging.plugins.spreading import Places
from merging.plugins.varying import entries_of, placed

if TYPE_CHECKING:
    from merging.plugins.problem import Problem
    from merging.plugins.strategy import MixStrategy


@dataclass(frozen=True, eq=False)
class Numbers:
    """One number for every model and component.

    Attributes:
        table: Float64, shape ``(models, components)``.
        columns: Name of a tensor → index of its component.
        by_component: Whether components are told apart, be their numbers equal or not.
    """

    table: NDArray[np.float64]
    columns: Mapping[str, int]
    by_component: bool = False

    def at(self, model: int, tensor: str) -> float:
        """The number of one model, by its place in the pool, for one tensor."""
        return float(self.table[model, self.columns[tensor]])

    def of(self, tensor: str) -> float:
        """The number for one tensor, where models have none of their own."""
        return self.at(0, tensor)

    @property
    def row(self) -> NDArray[np.float64]:
        """The numbers of all components, where models have none of their own."""
        first: NDArray[np.float64] = self.table[0]
        return first


Amount: TypeAlias = float | Numbers
"""A number, or one for every model and component."""


def at(amount: Amount, model: int, tensor: str) -> float:
    """The number of one model for one tensor, of whatever there is."""
    return amount.at(model, tensor) if isinstance(amount, Numbers) else amount


def numbers_of(strategy: MixStrategy, option: str, problem: Problem) -> Numbers:
    """The numbers of a strategy's option for every model and tensor of a problem, plain ones too.

    Args:
        strategy: the strategy.
        option: name of the option, declared with ``varying_option``.
        problem: has the models, the components and their depths.

    Raises:
        OptionError: a place has no number, or a ramp finds one component alone.
        UnknownNameError: an entry names a model or a component that is not there.
    """
    amount = amount_of(strategy, option, problem)
    if isinstance(amount, Numbers):
        return amount
    columns = {name: c for c, part in enumerate(problem.partition.components) for name in part.tensors}
    return Numbers(np.full((len(problem.pool), len(problem.partition)), amount), columns)


def number_of(strategy: MixStrategy, option: str, problem: Problem) -> float:
    """The number of an option that is one for the whole network, though it may be searched for.

    Raises:
        StrategyError: it is still to be searched for.
    """
    amount = amount_of(strategy, option, problem)
    if isinstance(amount, Numbers):
        raise RuntimeError(f"{option} is declared with varies='whole', and has no entries")
    return amount


def amount_of(strategy: MixStrategy, option: str, problem: Problem) -> Amount:
    """The numbers of a strategy's option for a problem: a plain one as it is, of ``none`` what it stands for.

    Args:
        strategy: the strategy.
        option: name of the option, declared with ``varying_option``.
        problem: has the models, the components and their depths.

    Raises:
        OptionError: a place has no number, or a ramp finds one component alone.
        UnknownNameError: an entry names a model or a component that is not there.
    """
    declared = next(each for each in options_of(type(strategy)) if each.name == option)
    value: Any = getattr(strategy, option)
    usual = declared.usual(getattr(strategy, "profile", None))
    default = strategy.default_number(option, problem) if usual is None else usual
    if not isinstance(value, tuple):  # a number, or none
        number = default if value is None else value
        if number is None:
            raise OptionError(f"{strategy.called(option)} is none, which stands for no number")
        return float(number)
    where, entries = Places.of(problem), entries_of(value, declared.spec.low, declared.spec.high)
    table = where.table(entries, strategy.called(option))
    if np.isnan(table).any():
        if not isinstance(default, int | float):
            lost = where.components[int(np.argmax(np.isnan(table).any(axis=0)))]
            raise OptionError(f"{strategy.called(option)} has no number for '{lost}'; begin with one for all")
        table[np.isnan(table)] = default
    columns = {name: c for c, part in enumerate(problem.partition.components) for name in part.tensors}
    return Numbers(table, columns, placed(entries))

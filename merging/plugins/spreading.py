"""From the entries of an option to one number for every model and component of a problem."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merging.errors import OptionError, StrategyError, UnknownNameError, unknown
from merging.plugins.varying import Entry, Ramp, Search

if TYPE_CHECKING:
    from merging.plugins.problem import Problem
    from merging.storage.pool import ModelPool
    from merging.values.partition import Partition

Variable = tuple[int, str, int]
"""A number that is searched for: place of its entry, its model (empty) and index of its component (-1), or all."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The models and components that numbers are for.

    Attributes:
        models: Names in pool order.
        components: Names in the partition's order.
        depths: Depth of each component: 0 for the network's stem, 1 for its head, the mean of its tensors' blocks.
        moving: Indices of the components that a merge can change: not frozen, not inert, with floating tensors.
    """

    models: tuple[str, ...]
    components: tuple[str, ...]
    depths: tuple[float, ...]
    moving: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem) -> Places:
        """The places of a problem."""
        return cls.between(problem.pool, problem.partition, problem.blocks)

    @classmethod
    def between(cls, pool: ModelPool, partition: Partition, blocks: Mapping[str, Sequence[str]]) -> Places:
        """The places of a pool that is divided; a component without floating tensors lies at depth 0.

        Args:
            pool: the models.
            partition: the components.
            blocks: the network's blocks in the order of its depth, name → its tensors.
        """
        held = [names for names in blocks.values() if pool.mixable & set(names)]
        block = {name: place for place, names in enumerate(held) for name in names}
        found = [[block[name] for name in part.tensors if name in block] for part in partition.components]
        last = max(len(held) - 1, 1)
        return cls(
            models=pool.names,
            components=partition.names,
            depths=tuple(sum(each) / len(each) / last if each else 0.0 for each in found),
            moving=tuple(
                column
                for column, part in enumerate(partition.components)
                if not (part.inert or part.frozen) and pool.mixable & set(part.tensors)
            ),
        )

    def where(self, entry: Entry) -> tuple[list[int], list[int]]:
        """The models and components of an entry.

        Raises:
            UnknownNameError: it names none that is there.
        """
        if not entry.model and entry.component in self.models and entry.component not in self.components:
            name = entry.component
            own = f"write {name}@=NUMBER where models have numbers of their own"
            raise UnknownNameError(f"unknown component '{name}': it is a model; {own}")
        return (
            matching("model", entry.model or "*", self.models),
            matching("component", entry.component or "*", self.components),
        )

    def check(self, entries: Sequence[Entry], what: str) -> None:
        """Refuses entries that name nothing that is there, and a ramp over a model that is one component.

        Args:
            entries: what the user wrote.
            what: the option, for messages.

        Raises:
            OptionError: such a ramp.
            UnknownNameError: such a name.
        """
        for entry in entries:
            self.where(entry)
            if isinstance(entry.value, Ramp):
                self._check_depth(what)

    def table(self, entries: Sequence[Entry], what: str) -> NDArray[np.float64]:
        """The numbers of all models (rows) in all components (columns); later entries win.

        Args:
            entries: what the user wrote; nothing in it is searched for.
            what: the option, for messages.

        Raises:
            OptionError: a ramp over a model that is one component, or a place that no entry has a number for.
            StrategyError: a number is still to be searched for.
            UnknownNameError: a model or component that is not there.
        """
        self.check(entries, what)
        table = np.full((len(self.models), len(self.components)), math.nan)
        for entry in entries:
            rows, columns = self.where(entry)
            if isinstance(entry.value, Search):
                raise StrategyError(f"{what} is to be searched for; call merging.mixed, not mix")
            if isinstance(entry.value, Ramp):
                table[np.ix_(rows, columns)] = [entry.value.at(self.depths[column]) for column in columns]
            else:
                table[np.ix_(rows, columns)] = entry.value
        return table

    def variables(self, entries: Sequence[Entry]) -> list[Variable]:
        """The numbers that are searched for: one for each component and each model that an entry names, else one.

        Those that later entries replace, or that no merge depends on, are left out.

        Raises:
            UnknownNameError: a model or component that is not there.
        """
        found: list[Variable] = []
        owners = np.full((len(self.models), len(self.components)), -1)
        for number, entry in enumerate(entries):
            rows, columns = self.where(entry)
            owners[np.ix_(rows, columns)] = -1
            if isinstance(entry.value, Search):
                for row in rows if entry.model else [-1]:
                    for column in columns if entry.component else [-1]:
                        whose = slice(None) if row < 0 else row, slice(None) if column < 0 else column
                        owners[whose] = len(found)
                        found.append((number, self.models[row] if entry.model else "", column))
        left = {int(owner) for owner in owners[:, self.moving].flat if owner >= 0}
        return [variable for place, variable in enumerate(found) if place in left]

    def filled(
        self, entries: Sequence[tuple[Entry, str]], numbers: Mapping[Variable, float], usual: float
    ) -> list[str]:
        """The entries as texts, with a number in place of each that was searched for; no place stands twice.

        Args:
            entries: each with its text.
            numbers: what was found.
            usual: the number of those that nothing depends on.
        """
        found = dict[str, str]()

        def put(place: str, text: str) -> None:
            found.pop(place, None)  # later entries win
            found[place] = text

        for number, (entry, text) in enumerate(entries):
            if not isinstance(entry.value, Search):
                put(text.rpartition("=")[0], text)
                continue
            rows, columns = self.where(entry)
            for model in [self.models[row] for row in rows] if entry.model else [""]:
                for column in columns if entry.component else [-1]:
                    value = numbers.get((number, model, column), usual)
                    name = self.components[column] if column >= 0 and len(self.components) > 1 else ""
                    place = f"{model}@{name}" if model else name
                    put(place, f"{place}={value!r}" if place else repr(value))
        return list(found.values())

    def _check_depth(self, what: str) -> None:
        """Refuses a ramp over what is one component of a deeper network."""
        if len(self.components) == 1:
            raise OptionError(
                f"{what} is a ramp, but the partition has one component, '{self.components[0]}'; choose the "
                "partitioner block or layer"
            )


def matching(kind: str, pattern: str, names: Sequence[str]) -> list[int]:
    """Indices of the names that a name or pattern finds.

    Raises:
        UnknownNameError: there is none; the nearest one is named.
    """
    found = [i for i, name in enumerate(names) if name == pattern] or [
        i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)
    ]
    if not found:
        raise unknown(kind, pattern, names)
    return found

"""Components and partitions: named groups of tensors, each of which gets one mixing coefficient.

A component is what Fassold (2023) calls a latent space manifold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from merging.errors import PartitionError
from merging.values.shown import Sheet, Shown, grid
from merging.values.wording import plural, some

TensorInfo: TypeAlias = tuple[tuple[int, ...], str]
"""Shape and dtype name (``"float32"``) of one tensor."""


@dataclass(frozen=True, repr=False)
class Component(Shown):
    """A named group of tensors.

    Attributes:
        name: unique within its partition.
        tensors: names of its tensors, at least one.
        inert: no gradient reaches it and nothing reads it: its coefficient cannot change a logit.
        constant: bit-equal in all models of the pool: its coefficient changes nothing while rows sum to one.
        frozen: kept at the first ingredient's values by the user.
    """

    name: str
    tensors: tuple[str, ...]
    inert: bool = False
    constant: bool = False
    frozen: bool = False

    @property
    def active(self) -> bool:
        """Whether a search has something to gain from this component."""
        return not (self.inert or self.constant or self.frozen)

    @property
    def state(self) -> str:
        """Its state in a word or two: active, inert, frozen, or equal in all models."""
        if self.inert or self.frozen:
            return "inert" if self.inert else "frozen"
        return "equal in all models" if self.constant else "active"

    def _sheet(self) -> Sheet:
        grids = (grid(("tensor",), [[name] for name in self.tensors]),)
        return Sheet(name="Component", facts=(self.name, plural(len(self.tensors), "tensor"), self.state), grids=grids)


@dataclass(frozen=True, repr=False)
class Partition(Shown):
    """Ordered, disjoint components that cover a model.

    Raises:
        PartitionError: a name or a tensor stands twice, or a component is empty.
    """

    components: tuple[Component, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [component.name for component in self.components]
        owners: dict[str, str] = {}
        for component in self.components:
            if not component.tensors:
                raise PartitionError(f"component '{component.name}' has no tensors; leave it out")
            for tensor in component.tensors:
                if tensor in owners:
                    raise PartitionError(
                        f"tensor '{tensor}' is in two components, '{owners[tensor]}' and '{component.name}'"
                    )
                owners[tensor] = component.name
        for name in names:
            if names.count(name) > 1:
                raise PartitionError(f"two components are called '{name}'")

    @classmethod
    def of_groups(cls, groups: Mapping[str, Iterable[str]], notes: Iterable[str] = ()) -> Partition:
        """Builds a partition from name → tensors; empty groups are left out."""
        components = (Component(name, tuple(tensors)) for name, tensors in groups.items())
        return cls(tuple(c for c in components if c.tensors), tuple(notes))

    def __len__(self) -> int:
        return len(self.components)

    @property
    def names(self) -> tuple[str, ...]:
        """The components' names, in order."""
        return tuple(component.name for component in self.components)

    @property
    def active(self) -> tuple[int, ...]:
        """Indices of the components that a search moves."""
        return tuple(i for i, component in enumerate(self.components) if component.active)

    @property
    def effective(self) -> tuple[int, ...]:
        """Indices of the components that can change a logit: all but the inert ones. Cache keys read these."""
        return tuple(i for i, component in enumerate(self.components) if not component.inert)

    def _sheet(self) -> Sheet:
        tensors = sum(len(component.tensors) for component in self.components)
        counts = f"{plural(len(self), 'component')} ({some(self.names, 4)})", f"{len(self.active)} active"
        rows = [[c.name, len(c.tensors), c.state] for c in self.components]
        return Sheet(
            name="Partition",
            facts=(*counts, plural(tensors, "tensor", ",")),
            grids=(grid(("component", "tensors", ""), rows),),
            notes=self.notes,
        )

    def check_covers(self, tensors: Collection[str]) -> None:
        """Raises PartitionError unless exactly these tensors are covered."""
        covered = {tensor for component in self.components for tensor in component.tensors}
        missing = [tensor for tensor in tensors if tensor not in covered]
        if missing:
            raise PartitionError(f"no component covers {some(_quoted(missing), 8)}; add a pattern for them")
        unknown = sorted(covered - set(tensors))
        if unknown:
            raise PartitionError(
                f"the partition names tensors that the models do not have: {some(_quoted(unknown), 8)}"
            )

    def with_ties(self, ties: Sequence[Sequence[str]]) -> Partition:
        """Moves every group of tied tensors into the component of its first member."""
        home = {tensor: c.name for c in self.components for tensor in c.tensors}
        ties = [group for group in ties if len({home[tensor] for tensor in group}) > 1]
        moved = {tensor: group[0] for group in ties for tensor in group[1:]}
        if not moved:
            return self
        groups: dict[str, list[str]] = {c.name: [t for t in c.tensors if t not in moved] for c in self.components}
        owner = {tensor: c.name for c in self.components for tensor in c.tensors}
        for tensor, first in moved.items():
            groups[owner[first]].append(tensor)
        notes = [f"tied tensors {', '.join(group)} share component '{owner[group[0]]}'" for group in ties]
        kept = tuple(replace(c, tensors=tuple(groups[c.name])) for c in self.components if groups[c.name])
        return Partition(kept, (*self.notes, *notes))

    def with_frozen(self, patterns: Sequence[str]) -> Partition:
        """Freezes what the regular expressions find: in a component's name (all of it) or in a tensor's name.

        A component of which only some tensors are frozen is split in two, ``name`` and ``name (frozen)``.

        Raises:
            PartitionError: a pattern is not a regular expression or finds nothing.
        """
        if not patterns:
            return self
        compiled = [_compile(pattern) for pattern in patterns]
        unused = set(patterns)
        components: list[Component] = []
        for component in self.components:
            cold: list[str] = []
            for tensor in component.tensors:
                hits = [p.pattern for p in compiled if p.search(component.name) or p.search(tensor)]
                unused.difference_update(hits)
                if hits:
                    cold.append(tensor)
            warm = tuple(tensor for tensor in component.tensors if tensor not in cold)
            if warm:
                components.append(replace(component, tensors=warm))
            if cold:
                name = f"{component.name} (frozen)" if warm else component.name
                components.append(replace(component, name=name, tensors=tuple(cold), frozen=True))
        if unused:
            raise PartitionError(
                f"`freeze` {sorted(unused)[0]!r} matches no component and no tensor; "
                f"components: {', '.join(self.names)}"
            )
        return Partition(tuple(components), self.notes)

    def with_marks(self, *, untouched: Collection[str] = (), equal: Collection[str] = ()) -> Partition:
        """Marks components as inert (all tensors ``untouched`` by a forward pass) or constant (all ``equal``)."""
        marked = (
            replace(
                c,
                inert=all(tensor in untouched for tensor in c.tensors),
                constant=all(tensor in equal for tensor in c.tensors),
            )
            for c in self.components
        )
        return Partition(tuple(marked), self.notes)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PartitionError(f"{pattern!r} is not a regular expression: {error}") from None


def _quoted(names: Sequence[str]) -> list[str]:
    return [f"'{name}'" for name in names]

"""Parameters that vary: which tensors have the same values, and the partition of these groups.

As mergekit has it: of a tensor's name the first number between dots is its layer, what stands before that is the module
that the layer is one of; the first layer of a module lies at depth 0, the last at 1 (a single one at 1), and what is in
no layer at 0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Tensor:
    """A tensor as parameters see it.

    Attributes:
        name: its name.
        module: what its layer is one of; empty where it is in none.
        layer: number of the layer, from 0.
        layers: how many the module has; 0 where it is in none.
    """

    name: str
    module: str = ""
    layer: int = 0
    layers: int = 0


@dataclass(frozen=True)
class Group:
    """Tensors for which all parameters have the same values.

    Attributes:
        name: the component's.
        pattern: regular expression that takes them, after those before it have taken theirs.
        tensor: one of them; all others have the same values.
    """

    name: str
    pattern: str
    tensor: Tensor


def located(names: Iterable[str]) -> list[Tensor]:
    """Finds the layers of tensors."""
    names = list(names)
    places = {name: found for name in names if (found := _LAYER.search(name)) is not None}
    layers: dict[str, int] = {}
    for name, found in places.items():
        module = name[: found.start()]
        layers[module] = max(layers.get(module, 0), int(found[1]) + 1)
    return [
        Tensor(name, module := name[: found.start()], int(found[1]), layers[module])
        if (found := places.get(name)) is not None
        else Tensor(name)
        for name in names
    ]


def groups(
    tensors: Sequence[Tensor], filters: Collection[str], values: Callable[[Tensor], Hashable]
) -> tuple[Group, ...]:
    """Divides tensors into those that have the same values, as few patterns as take them.

    A group holds the tensors whose names hold the same filters: those of one layer or, where layers do not differ, of
    all; so a group's name says what is in it.

    Args:
        tensors: all of the model's.
        filters: texts that names are searched for.
        values: all parameters' values for a tensor.

    Returns:
        The groups in the order in which their patterns are to be tried; one, where nothing varies.
    """
    kinds: dict[frozenset[str], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(frozenset(text for text in filters if text in tensor.name), []).append(tensor)
    if len({values(tensor) for tensor in tensors}) == 1:
        return (Group("all", ".*", tensors[0]),)
    modules = {tensor.module for tensor in tensors if tensor.layers}
    found = list[Group]()
    for kind in sorted(kinds, key=lambda kind: (-len(kind), *sorted(kind))):  # who holds more filters comes first
        members = kinds[kind]
        if len({values(tensor) for tensor in members}) == 1:
            found.append(Group(_named(kind), _pattern(kind), members[0]))
            continue
        first: dict[tuple[str, int], Tensor] = {}
        for tensor in members:
            if tensor.layers:
                first.setdefault((tensor.module, tensor.layer), tensor)
        for (module, layer), tensor in first.items():
            name = f"{module if len(modules) > 1 else module.rpartition('.')[2]}.{layer}"
            found.append(Group(_named(kind, name), _pattern(kind, f"{module}.{layer}."), tensor))
        outside: dict[Hashable, list[Tensor]] = {}
        for tensor in members:
            if not tensor.layers:
                outside.setdefault(values(tensor), []).append(tensor)
        *some, rest = outside.values() or [[]]
        for alike in some:
            names = "|".join(_literal(tensor.name) for tensor in alike)
            found.append(Group(_named(kind, "behind"), f"^({names})$", alike[0]))
        if rest:
            found.append(Group(_named(kind, "" if kind else "outside"), _pattern(kind), rest[0]))
    taken = set[str]()
    for place, group in enumerate(found):  # filters of unlike characters may give one name, and names are told apart
        number = next(n for n in itertools.count(1) if (f"{group.name}_{n}" if n > 1 else group.name) not in taken)
        found[place] = replace(group, name=f"{group.name}_{number}" if number > 1 else group.name)
        taken.add(found[place].name)
    return tuple(found)


def _named(kind: frozenset[str], layer: str = "") -> str:
    """A component's name, of characters that mean nothing in options."""
    words = [*([layer] if layer else []), *sorted(kind)] or ["rest"]
    return re.sub(r"[^\w.+-]+", "_", "+".join(word.strip(".") or "dot" for word in words))


def _pattern(kind: frozenset[str], start: str = "") -> str:
    """The regular expression for names that begin like that and hold all filters."""
    held = sorted(kind)
    if start or len(held) > 1:
        return "^" + "".join(f"(?=.*{_literal(text)})" for text in held) + _literal(start)
    return _literal(held[0]) if held else ".*"


def _literal(text: str) -> str:
    return re.escape(text).replace(r"\.", "[.]").replace(r"\-", "-").replace(r"\ ", " ")

"""From whatever a caller gives (files, patterns, checkpoints, modules, state dicts) to the checkpoints of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from merging.errors import PoolError
from merging.storage.checkpoint import Checkpoint
from merging.storage.in_memory import is_in_memory
from merging.storage.sources import Source, divided, fetch, names_apart, place_of, selected
from merging.values.wording import kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    Model: TypeAlias = Source | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, Tensor]
    """One thing that a pool can be made of: a path, pattern or id of the Hub, a checkpoint, a module, a state dict."""
    Models: TypeAlias = Model | Iterable[Model] | Mapping[str, Model]
    """A thing, a list of things, or a mapping from names to things."""

WAY = "give a path or pattern, a Checkpoint, a module or its state_dict(), or a list of these"


def opened(models: Models, base: Model | None = None) -> tuple[list[Checkpoint], Checkpoint | None]:
    """Opens models and their base.

    What is in memory is copied (:meth:`Checkpoint.of`) and called ``model_0``, ``model_1`` … by its place in the list,
    where no mapping names it. A file counts once, whatever links lead to it; the base is left out where the patterns
    also match it.

    Args:
        models: a thing, a list of things, or a mapping from names to things.
        base: the model that they were fine-tuned from, where known.

    Raises:
        PoolError: something that is no model, or a source that matches nothing.
        CheckpointError: a file is not a checkpoint, or a mapping no state dict.
    """
    things = list(things_in(models))
    start = None if base is None else checked(base, "the base")
    alone = len(things) == 1 and things[0][1] is models
    sources = [
        checked(thing, "the pool" if alone else f"{name!r} in the pool" if name else f"item {place} of the pool")
        for place, (name, thing) in enumerate(things)
    ]
    fetch(source for source in (*sources, start) if source is not None and not is_model(source))
    taken = [] if start is None or is_model(start) else [place_of(divided(start)[0])]
    lying = [source for place, source in enumerate(sources) if not is_model(source) and not things[place][0]]
    found = selected(lying, taken)
    names, called = names_apart([path for path, _ in found], taken[0] if taken else None) if found else ([], "")
    below = _base(start, taken, called)
    made = [Checkpoint(path, name, key, below) for (path, key), name in zip(found, names, strict=True)]
    for place, (name, _) in enumerate(things):
        source = sources[place]
        if isinstance(source, Checkpoint):
            made.append(source)
        elif is_model(source):
            made.append(Checkpoint.of(cast("Any", source), name or _free(f"model_{place}", names)))
        elif name:
            made.append(_named(name, source, below))
    return made, below


def _base(start: Any, taken: Sequence[Path], called: str) -> Checkpoint | None:
    """Opens the base, on which adapters stand; None where there is none.

    Raises:
        CheckpointError: it is no checkpoint.
    """
    if start is None or isinstance(start, Checkpoint):
        return start
    return Checkpoint.of(start, "base") if is_model(start) else Checkpoint(taken[0], called, divided(start)[1])


def check_models(models: object) -> None:
    """Refuses what holds something that is no model; opens nothing.

    Raises:
        PoolError: it names the first.
    """
    for place, (name, thing) in enumerate(things_in(models)):
        alone = thing is models
        checked(thing, "the pool" if alone else f"{name!r} in the pool" if name else f"item {place} of the pool")


def things_in(models: object) -> Iterator[tuple[str, object]]:
    """Each thing, with its name where a mapping says one."""
    if isinstance(models, Mapping) and not is_in_memory(models) and not _is_source(models) and models:
        if {"state", "param_groups"} <= set(map(str, models)):
            yield "", models
            return
        several = [name for name, thing in models.items() if isinstance(thing, Mapping) and is_in_memory(thing)]
        if several and not all(isinstance(each, _THINGS) or is_in_memory(each) for each in models.values()):
            raise PoolError(
                f"the pool is a mapping with a state dict in it, beside other things: give its "
                f"{' or '.join(repr(str(name)) for name in several[:3])}"
            )
        for name, thing in models.items():
            if not isinstance(name, str) or not name.strip():
                what = "an empty text" if isinstance(name, str) else kind_of(name)
                raise PoolError(f"the pool is a mapping with {what} for a name; names are texts")
            yield name, thing
    elif isinstance(models, Mapping) and not models:
        return
    elif isinstance(models, Sequence | Set | Iterator | ValuesView) and not isinstance(models, str | bytes):
        for thing in models:
            yield "", thing
    else:
        yield "", models


_THINGS = (str, os.PathLike, Checkpoint, Mapping)


def _is_source(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a path with a key, and no mapping from names to things."""
    return "path" in value and isinstance(value["path"], str | os.PathLike) and set(value) <= {"path", "key"}


def is_model(thing: object) -> bool:
    """Whether it is a model by itself: nothing to look for on disk."""
    return isinstance(thing, Checkpoint) or not isinstance(thing, str | Path | Mapping) or not _lies(thing)


def _lies(thing: str | Path | Mapping[Any, Any]) -> bool:
    if isinstance(thing, str | Path):
        return True
    return not is_in_memory(thing) and ("path" in thing or set(thing) == {"key"})


def checked(thing: object, place: str) -> Any:
    """A thing as it is, once it is known that it may be a model.

    Raises:
        PoolError: it cannot.
    """
    if isinstance(thing, os.PathLike) and not isinstance(thing, Path):
        return Path(thing)
    if isinstance(thing, str | Path) and not str(thing).strip():
        raise PoolError(f"{place} is an empty path; {WAY}")
    if isinstance(thing, str | Path | Checkpoint | Mapping) or is_in_memory(thing):
        return thing
    raise PoolError(f"{place} is {kind_of(thing)}; {WAY}")


def _named(name: str, source: Source, base: Checkpoint | None) -> Checkpoint:
    """The checkpoint that a mapping calls by a name.

    Raises:
        PoolError: a pattern or folder has several.
    """
    found = selected([source])
    if len(found) != 1:
        raise PoolError(
            f"'{divided(source)[0]}' is {len(found)} models, and '{name}' is to be one; give them in a list"
        )
    path, key = found[0]
    return Checkpoint(path, name, key, base)


def _free(name: str, taken: Sequence[str]) -> str:
    """A name that no file has."""
    return f"{name} (memory)" if name in taken else name

"""Classes and their order, as what lies beside the weights says them: what a row of the head stands for.

Two heads with another order of classes have the same shapes, and their average is a model of nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.errors import PoolError
from merging.storage.class_names import Model, Names, classes_of
from merging.storage.companions import shown
from merging.values import wording

_PLACEHOLDER = re.compile(r"(?:label|class|cls|category)?[ _-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Said:
    """The classes of one model in one place, such as ``config.json: id2label``."""

    model: str
    path: Path
    place: str
    names: Names


def agree_on_classes(models: Mapping[str, Model]) -> tuple[str, ...]:
    """Compares the classes of models that are to be mixed, where anything beside (or in) their files says them.

    Args:
        models: name → checkpoint; each of them is compared with the first that names its classes.

    Returns:
        What is to be said: classes without names, or spelled otherwise.

    Raises:
        PoolError: two models have other classes, or the same ones in another order.
    """
    known: dict[object, dict[str, Names]] = {}
    places: dict[str, list[_Said]] = {}
    mains, silent = list[_Said](), list[str]()
    for model, checkpoint in models.items():
        found = classes_of(checkpoint, known)
        for place, names in found.items():
            places.setdefault(place, []).append(_Said(model, checkpoint.path, place, names))
        if found:
            mains.append(_Said(model, checkpoint.path, *_main(found)))
        else:
            silent.append(model)
    notes = [note for group in places.values() for note in _compare(group)]
    if len({each.place for each in mains}) > 1:
        notes += _compare(mains)
    named = next((each for each in mains if not _numbered(each.names)), None)
    if named is not None and silent:
        notes.append(
            f"{some(silent)} {_do(silent, 'say')} nothing of {_its(silent)} classes, {shown(named.model)} names them "
            f"({_few(named.names)}): whether they stand in the same order cannot be told"
        )
    return tuple(dict.fromkeys(notes))


def names_classes(checkpoint: Model) -> bool:
    """Whether the classes of a checkpoint have names, and not numbers only."""
    return any(not _numbered(names) for names in classes_of(checkpoint).values())


def _compare(group: Sequence[_Said]) -> Iterator[str]:
    """Compares every model of a group with the first whose classes have names."""
    first = next((each for each in group if not _numbered(each.names)), group[0])
    numbered, reworded, respelled = list[_Said](), list[_Said](), list[_Said]()
    for other in group:
        if other.names is first.names or other.names == first.names:
            continue
        plain, others = _plain(first.names, other.names), _plain(other.names, first.names)
        if not set(plain.values()) & set(others.values()) and (_numbered(other.names) or other.place != first.place):
            (numbered if _numbered(other.names) else reworded).append(other)
            continue
        index = _difference(plain, others)
        if index is not None:
            raise PoolError(_refused(first, other, index))
        respelled.append(other)
    unknown = "whether they stand in the same order cannot be told"
    for several, word in ((numbered, "number"), (reworded, "name")):
        models = [each.model for each in several]
        if models and not _numbered(first.names):
            what = f"{_do(models, word)} {_its(models)} classes {_few(several[0].names)}"
            yield f"{some(models)} {what}, {shown(first.model)} {_few(first.names)}: {unknown}"
    for index in [_difference(first.names, each.names) for each in respelled[:1]]:
        if index is not None:
            models = [each.model for each in respelled]
            spelled = f"{_one(first, index)} in {shown(first.model)}, {_one(respelled[0], index)} in {some(models)}"
            yield f"class {index} is {spelled}"


def some(models: Sequence[str]) -> str:
    """The first three of several names, and how many more.

    >>> some(["a", "b"]), some(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    models = [shown(model) for model in models]
    if len(models) > 3:
        return wording.some(models, 3)
    return " and ".join([", ".join(models[:-1]), models[-1]] if len(models) > 1 else models)


def _do(models: Sequence[str], verb: str) -> str:
    return verb if len(models) > 1 else f"{verb}s"


def _its(models: Sequence[str]) -> str:
    return "their" if len(models) > 1 else "its"


def _refused(first: _Said, other: _Said, index: str) -> str:
    same = sorted(first.names.values()) == sorted(other.names.values())
    what = "the same classes in another order" if same else "other classes"
    place = other.place if other.place == first.place else f"{other.place}, {first.place}"
    way = (
        "put the rows of one head, and its names, into the order of the other"
        if same
        else "leave one of them out, or correct the names where they are wrong"
    )
    paths = shown(f"{other.path} and {first.path}")
    return (
        f"{paths} have {what}: class {index} is {_one(other, index)} in the first, "
        f"{_one(first, index)} in the second ({shown(place)}); {way}"
    )


def _main(found: Mapping[str, Names]) -> tuple[str, Names]:
    """The place where a model says its classes, with names rather than numbers where it can be."""
    return next(((place, names) for place, names in found.items() if not _numbered(names)), next(iter(found.items())))


def _difference(first: Names, other: Names) -> str | None:
    """The first index at which two models differ."""
    indices = sorted({*first, *other}, key=lambda index: (len(index), index))
    return next((index for index in indices if first.get(index) != other.get(index)), None)


def _numbered(names: Names) -> bool:
    """Whether names are numbers only, such as LABEL_0, counted from 0 or 1."""
    numbers = [_PLACEHOLDER.fullmatch(name) for name in names.values()]
    offsets = {
        int(found[1]) - int(index) if found and len(found[1]) < 10 else None
        for index, found in zip(names, numbers, strict=True)
    }
    return offsets in ({0}, {1})


def _plain(names: Names, beside: Names) -> Names:
    """Names without case, underscores and accents' spelling, unless classes of either differ in nothing else."""
    folded = {index: _folded(name) for index, name in names.items()}
    distinct = len(set(folded.values())) == len(set(names.values()))
    also = len({_folded(name) for name in beside.values()}) == len(set(beside.values()))
    return folded if distinct and also else names


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _one(said: _Said, index: str) -> str:
    return f"'{shown(said.names[index])}'" if index in said.names else "not named"


def _few(names: Names) -> str:
    return wording.some([shown(name) for name in names.values()], 2, counted=False)

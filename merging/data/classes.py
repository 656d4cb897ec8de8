"""From a set's own classes to the model's outputs: by name, with subsets, and folders that stand for several classes.

A set's labels are written as names (folders, a column of text) or as numbers. Names are looked up among the model's
classes; a set that has fewer of them is scored with the logits restricted to its own. Numbers count the model's
outputs; but where the classes' names are numbers themselves, such as stars from 1 to 5, those of a table are names
(:func:`spelled`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from merging.errors import TaskError, unknown
from merging.values.labels import Written, is_fraction, is_number, whole

OWN, ALL = "own", "all"
_ONE_NUMBER = re.compile(r"(\D*)(\d+)(\D*)")
_BEGINS = re.compile(r"(\D*)(\d+)")


@dataclass(frozen=True)
class Choice:
    """The words of a user on a set's classes: which it has, and what they are called in the model.

    Attributes:
        classes: names of the set's classes (what its numbers count, and the only ones that are used); ``own``: those
            that occur; ``all``: logits are not restricted; None: those that the set declares.
        map: the set's name for a class → the model's names that are right for it; none: its samples are left out.
    """

    classes: Sequence[str] | str | None = None
    map: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelling:
    """The mapping from a set's labels, as they are written, to the labels of a split.

    Attributes:
        labels: label as it is written → label of the split; samples of others are left out.
        groups: the model's outputs that stand for each label of the split; None: labels are outputs.
    """

    labels: Mapping[Written, int]
    groups: tuple[tuple[int, ...], ...] | None = None


def distinct_names(labels: Sequence[Written]) -> tuple[str, ...] | None:
    """The names that occur in a column of labels, sorted; None where they are numbers."""
    found = {nfc(label) for label in labels if isinstance(label, str)}
    return tuple(sorted(found)) if not all(is_number(label) or is_fraction(label) for label in found) else None


def spelled(
    where: str, written: Sequence[Written], model: Sequence[str] | None, choice: Choice
) -> dict[Written, Written]:
    """Decides what labels of a table mean that says nothing of its classes: names, or numbers that count outputs.

    Args:
        where: the set, for messages.
        written: the distinct labels that occur, text or numbers.
        model: names of the model's outputs; None: nobody named them.
        choice: what the user says; ``classes`` that are listed are what numbers count.

    Raises:
        TaskError: the model's names are numbers, and a label is none of them.
    """
    counted = {label: number for label in written if (number := whole(label)) is not None}
    if len(counted) < len(written):
        return {label: label for label in written}
    listed = choice.classes is not None and not isinstance(choice.classes, str)
    if model is None or listed or not all(map(is_number, model)):
        return dict(counted)
    known, listing = set(model) | set(choice.map), ", ".join(f'"{name}"' for name in model[:2])
    means: dict[Written, Written] = {}
    for label in written:
        means[label] = str(label) if str(label) in known else str(counted[label])
        if means[label] not in known:
            raise TaskError(
                f"{where}: label {label} is none of the classes, whose names are numbers ({model[0]} to {model[-1]}); "
                f"where labels count from 0 instead, list the names in its table: classes = [{listing}, …]"
            )
    return means


def nfc(name: str) -> str:
    """A name in Unicode's composed form, in which names are compared: file systems and editors differ in it."""
    return unicodedata.normalize("NFC", name)


def in_order_of_text(where: str, names: Sequence[str]) -> str | None:
    """Warns that names of classes are numbered and their order is that of text; None where it is not.

    >>> in_order_of_text("photos", ["0", "1", "10", "2"])
    "photos: the names of the classes are numbered, and in the order of text: label 2 is class '10'; \
[task] classes = […] gives another order"

    Args:
        where: what has these names.
        names: the names, in the order that labels count.
    """
    values = _numbered(names)
    places: Sequence[int] = range(len(names)) if len(set(values)) == len(names) else ()
    if not places:
        places, values = _mostly_numbered(names)
    ordered = sorted(places, key=values.__getitem__)
    first = next((index for index, place in zip(places, ordered, strict=True) if index != place), None)
    if first is None:
        return None
    return (
        f"{where}: the names of the classes are numbered, and in the order of text: label {first} is class "
        f"'{names[first]}'; [task] classes = […] gives another order"
    )


def _numbered(names: Sequence[str]) -> list[int]:
    """The numbers in names that differ in nothing else, such as "class 7"; none where one has none."""
    values = [value for name in names if (value := whole(name)) is not None]
    if len(values) == len(names):
        return values
    found = [_ONE_NUMBER.fullmatch(name) for name in names]
    parts = {(match[1], match[3]) if match else None for match in found}
    return [int(match[2]) for match in found if match] if len(parts) == 1 and None not in parts else []


def _mostly_numbered(names: Sequence[str]) -> tuple[Sequence[int], list[int]]:
    """Places of sorted names that begin alike and go on with a number, where half of them do, and all names' numbers.

    Such as age groups ("3-9", "10-19", "more than 70"), or classes and a background.
    """
    found = [_BEGINS.match(name) for name in names]
    begins = Counter(match[1] for match in found if match)
    common, count = begins.most_common(1)[0] if begins else ("", 0)
    if count < max(2, len(names) / 2) or list(names) != sorted(names):
        return (), []
    places = [place for place, match in enumerate(found) if match and match[1] == common]
    return places, [int(match[2]) if match else 0 for match in found]


def counted_from_one(where: str, labels: Sequence[Written], count: int | None) -> str | None:
    """Asks what labels mean that are numbers from 1 on; None where they do not begin there.

    Args:
        where: the set.
        labels: the distinct ones.
        count: number of the classes, where known.
    """
    found = [label for label in labels if isinstance(label, int)]
    if not found or len(found) < len(labels) or min(found) != 1:
        return None
    of = f", and there are {count} classes (0 to {count - 1})" if count else ""
    return f"warning: {where}: the labels go from 1 to {max(found)}{of}; are they counted from 1?"


def labelling(
    where: str,
    written: Sequence[Written],
    declared: Sequence[str] | None,
    model: Sequence[str] | None,
    choice: Choice,
    *,
    restrict: bool,
) -> Labelling:
    """Finds the model's outputs for every label of a set.

    Args:
        where: the set, for messages.
        written: the distinct labels that occur.
        declared: names of the set's classes, in the order that its numbers count; None: it names none.
        model: names of the model's outputs, in order; None: nobody named them.
        choice: what the user says of the set.
        restrict: whether a set with fewer classes than the model is scored on these alone, where the user says
            nothing.

    Raises:
        TaskError: a class that the model does not have (the nearest is named), or a number out of range.
    """
    model = None if model is None else [nfc(name) for name in model]
    choice = _composed(choice)
    listed = list(choice.classes) if choice.classes is not None and not isinstance(choice.classes, str) else None
    if isinstance(choice.classes, str) and choice.classes not in (OWN, ALL):
        raise TaskError(f"{where}: classes is '{choice.classes}'; write 'own', 'all' or a list of names")
    names = listed or ([nfc(name) for name in declared] if declared is not None else None)
    found = {label: _outputs(where, label, names, listed, model, choice.map) for label in written}
    found = {label: outputs for label, outputs in found.items() if outputs}
    if not found:
        raise TaskError(f"{where} holds no samples of the classes asked for")
    _check_map(where, choice.map, [*(names or ()), *(nfc(label) for label in written if isinstance(label, str))])
    groups = sorted(set(found.values()))
    if listed or (choice.classes is None and restrict and names is not None):
        every = [_outputs(where, name, names, listed, model, choice.map) for name in names or ()]
        groups = sorted({outputs for outputs in every if outputs})
    elif choice.classes != OWN:  # all of the model's outputs
        if all(len(outputs) == 1 for outputs in found.values()):
            return Labelling({label: outputs[0] for label, outputs in found.items()})
        taken = {output for group in groups for output in group}
        groups += [(k,) for k in range(len(model or ())) if k not in taken]
    if model is not None and groups == [(k,) for k in range(len(model))]:
        return Labelling({label: outputs[0] for label, outputs in found.items()})
    place = {group: number for number, group in enumerate(groups)}
    return Labelling({label: place[outputs] for label, outputs in found.items()}, tuple(groups))


def _outputs(
    where: str,
    label: Written,
    names: Sequence[str] | None,
    listed: Sequence[str] | None,
    model: Sequence[str] | None,
    renamed: Mapping[str, str | Sequence[str]],
) -> tuple[int, ...]:
    """The model's outputs for one label; none where its samples are left out."""
    if isinstance(label, int):
        count = len(names) if names is not None else len(model) if model is not None else None
        if label < 0 and count is None:
            raise TaskError(f"{where}: label {label} is out of range; labels count from 0, leave such samples out")
        if count is not None and not 0 <= label < count:  # else the model's outputs say so, once it is built
            hint = "; are they counted from 1?" if label == count else ""
            raise TaskError(
                f"{where}: label {label} is out of range; there are {count} classes (0 to {count - 1}){hint}"
            )
        if names is None or model is None:
            return (label,)
        label = names[label]
    else:
        label = nfc(label)
        if listed is not None and label not in listed and label not in renamed:
            return ()
    if model is None:
        raise TaskError(
            f"{where} names classes such as '{label}', but nobody says which outputs of the model these are: give "
            "[task] classes = […], the names in the order of the outputs"
        )
    wanted = renamed.get(label, label)
    found = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in model:
            way = (
                "or take it out of the set's classes"
                if listed is not None and name == label
                else f"or say in its table what it is: map = {{ {label} = … }}, a class, several in a list, [] for none"
            )
            raise TaskError(f"{where}: {unknown('class', name, model, way)}")
        found.append(model.index(name))
    return tuple(sorted(set(found)))


def _composed(choice: Choice) -> Choice:
    """The same choice, its names in the composed form."""
    classes = choice.classes if isinstance(choice.classes, str | None) else [nfc(name) for name in choice.classes]
    renamed = {
        nfc(name): nfc(to) if isinstance(to, str) else [nfc(each) for each in to] for name, to in choice.map.items()
    }
    return Choice(classes, renamed)


def _check_map(where: str, renamed: Mapping[str, object], known: Sequence[str]) -> None:
    for name in renamed:
        if name not in known:
            raise TaskError(f"{where}: {unknown('class in map', name, set(known))}")

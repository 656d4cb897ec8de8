"""What each set of samples is for (held-out data, a test set, training data, a shift) and what its classes are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.data.images import Preparation
from merging.data.opened import Opened
from merging.data.opening import open_data
from merging.data.text import reads_language
from merging.errors import MergingError
from merging.looking.guessing.places import Place, places
from merging.models.source import ModelSource
from merging.plugins.progress import Progress, Silent

ROLES: Mapping[str, tuple[str, ...]] = {
    "held_out": ("val", "valid", "validation", "dev", "heldout", "holdout", "held", "eval"),
    "test": ("test", "testing", "tst", "tests"),
    "train": ("train", "training", "trainings", "trn", "trainval"),
}
"""Part of a task → words that sets are called by."""
_KIND = re.compile(r"(sets?|data(set)?|splits?|images?|imgs?|pictures|samples|files)$")
"""Ends of such words that say no more: ``trainset``, ``ValImages``."""
_PLAIN = ("photo", "photos", "real", "images", "pictures", "clean", "original", "data")
"""Names of the kind of pictures that models are trained on, among domains."""


@dataclass(frozen=True, kw_only=True)
class FoundSet:
    """A set of samples, opened.

    Attributes:
        place: its path and its words.
        names: names of its classes, in their order; None: its labels are numbers.
        labels: how many distinct labels occur, and the largest number among them.
        role: what its name says it is for; empty where that says nothing.
        scored: ``documents`` or ``questions`` where a language model is scored on it; empty elsewhere.
    """

    place: Place
    names: tuple[str, ...] | None
    labels: tuple[int, int]
    role: str
    scored: str = ""

    @property
    def title(self) -> str:
        """Gives what it is called where it is a shift: the parts of its name that are no role, as one word."""
        words = [word for word in self.place.words if not role_of(word)] or list(self.place.words)
        return re.sub(r"[^\w-]+", "-", words[0]).strip("-") or "shift"


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The sets of a task.

    Attributes:
        parts: ``held_out``, ``test``, ``train`` → the set.
        shifts: name → the set.
        guessed: parts whose role is a guess → why, and what else it may be.
        left_out: path → why it was not taken.
    """

    parts: Mapping[str, FoundSet] = field(default_factory=dict)
    shifts: Mapping[str, FoundSet] = field(default_factory=dict)
    guessed: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def role_of(word: str) -> str:
    """The part of a task that a word stands for; empty where it is none.

    >>> role_of("valid"), role_of("val_labels"), role_of("TrainSet"), role_of("sketch")
    ('held_out', 'held_out', 'train', '')
    """
    parts = [part for part in re.split(r"[^a-z]+", word.lower()) if part]
    parts = [_KIND.sub("", part) or part for part in parts]
    return next((role for part in parts for role, words in ROLES.items() if part in words), "")


def found_sets(
    folders: Sequence[Path], source: ModelSource, *, texts: bool, progress: Progress | None = None
) -> tuple[list[FoundSet], dict[str, str]]:
    """Opens the sets that lie in folders, nothing is decoded.

    Returns:
        The sets, and path → why something that looks like one is none.
    """
    progress, found, refused = progress or Silent(), list[FoundSet](), dict[str, str]()
    for folder in folders:
        progress.stage(f"looking for data in {folder}")
        there, wrong = places(folder, texts=texts, language=reads_language(source))
        refused |= wrong
        for place in there:
            try:
                opened = open_data(place.spec, source, Preparation())
            except MergingError as error:
                refused[place.path] = str(error)
                continue
            found.append(
                FoundSet(
                    place=place,
                    names=opened.names,
                    labels=_labels(opened),
                    role=_role(place),
                    scored=opened.scored,
                )
            )
    return found, refused


def _labels(opened: Opened) -> tuple[int, int]:
    numbers = [int(label) for label in opened.written if isinstance(label, int)]
    return len(opened.written), max(numbers, default=-1)


def _role(place: Place) -> str:
    return next((role for word in place.words if (role := role_of(word))), "")


def with_roles(found: Sequence[FoundSet], classes: int | None) -> Roles:
    """Says what each set is for, by its name and its classes.

    Args:
        found: the sets.
        classes: outputs of the model; None: its head is made of the classes' names.
    """
    fits = [each for each in found if classes is None or _fits(each, classes)]
    left = {each.place.path: _misfit(each, classes) for each in found if each not in fits}
    parts, guessed = dict[str, FoundSet](), dict[str, str]()
    whole = [each for each in fits if _complete(each, classes)] or fits
    for role in ROLES:
        own = [each for each in fits if each.role == role and each in whole]
        if own:
            parts[role] = own[0]
    plain = [each for each in fits if not each.role]
    if "held_out" not in parts:
        stand_in = _stand_in(parts, plain, classes)
        if stand_in is not None:
            parts["held_out"], guessed["held_out"] = stand_in
            if parts.get("test") is parts["held_out"]:
                del parts["test"]
    rest = [each for each in fits if all(each is not part for part in parts.values())]
    if (held := parts.get("held_out")) is not None:
        others = [each for each in fits if each.scored != held.scored]
        left |= {each.place.path: f"{each.scored}, and the held-out data are {held.scored}" for each in others}
        parts = {part: each for part, each in parts.items() if each not in others}
        rest = [each for each in rest if each not in others]
    shifts = dict(_shifts(rest, parts, left))
    return Roles(parts=parts, shifts=shifts, guessed=guessed, left_out=left)


def _fits(each: FoundSet, classes: int) -> bool:
    """Whether a set's classes can be the model's, or some of them."""
    count, largest = each.labels
    if each.names is not None:
        return 1 < len(each.names) <= classes
    return count > 0 and largest < classes


def _complete(each: FoundSet, classes: int | None) -> bool:
    return classes is None or each.names is None or len(each.names) == classes


def _misfit(each: FoundSet, classes: int | None) -> str:
    count = len(each.names) if each.names is not None else max(each.labels[1] + 1, each.labels[0])
    return f"{count} classes, and the model has {classes} outputs"


def _stand_in(
    parts: Mapping[str, FoundSet], plain: Sequence[FoundSet], classes: int | None
) -> tuple[FoundSet, str] | None:
    """A set to choose by where none is called so, and what is to be known of that."""
    if parts:
        plain = []  # a set that is called something else is another kind of pictures than train or test
    whole = sorted((each for each in plain if _complete(each, classes)), key=lambda each: each.title not in _PLAIN)
    others = ", ".join(each.place.path for each in whole[1:5])
    if whole:
        more = f"; it might be another: {others}" if others else ""
        return whole[0], f"no set is called val or validation, and this has all classes{more}"
    if "test" in parts:
        return parts["test"], "the only set besides training data: it chooses the merge, so no independent test is left"
    if "train" in parts:
        return None
    return (plain[0], "it has some of the model's classes only") if plain else None


def _shifts(
    rest: Sequence[FoundSet], parts: Mapping[str, FoundSet], left: dict[str, str]
) -> Iterator[tuple[str, FoundSet]]:
    """The other sets whose classes are the model's, each domain once, its test set where it has several."""
    held, names = parts.get("held_out"), set[str]()
    known = None if held is None or held.names is None else set(held.names)
    order = {"test": 0, "held_out": 1, "": 2, "train": 3}
    for each in sorted(rest, key=lambda each: order[each.role]):
        title = each.title
        if held is None or (each.role == "train" and title in (names | {held.title})):
            left[each.place.path] = "a further set of training data"
        elif known is not None and (each.names is None or not set(each.names) <= known):
            odd = sorted(set(each.names or ()) - known)
            left[each.place.path] = f"other classes: {', '.join(odd[:3])}" if odd else "its labels are numbers"
        elif title in names or (title == held.title and each.role == "held_out"):
            left[each.place.path] = f"a further set called {title}"
        elif title not in ("held_out", "train", "unlabelled", "test"):
            names.add(title)
            yield title, each


def first_classes(roles: Roles) -> tuple[tuple[str, ...] | None, FoundSet | None]:
    """The classes as a task takes them where nobody lists them: those of the training data, else the held-out data."""
    for part in ("train", "held_out"):
        own = roles.parts.get(part)
        if own is not None and own.names is not None:
            return own.names, own
    return None, None


def specs(roles: Roles) -> dict[str, Any]:
    """The keys of a [task] that name data."""
    found: dict[str, Any] = {part: roles.parts[part].place.spec for part in ROLES if part in roles.parts}
    if roles.shifts:
        found["shifts"] = {name: each.place.spec for name, each in roles.shifts.items()}
    return found

"""A set that was found, and its classes as the user and the model have them; it is decoded later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from merging.data.classes import Choice, Labelling, counted_from_one, labelling, spelled
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Split
from merging.values.labels import Written, is_fraction, is_number, no_classes, whole


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A set that was found and listed, and not decoded yet.

    Attributes:
        where: what the user wrote, for messages.
        names: names of its classes, in the order in which its numbers count them; None: it names none.
        written: the distinct labels that occur; empty where they are not known before loading.
        choice: what the user says of its classes.
        decode: loads it, labels and groups as given; None: as they are, or without labels.
        final: whether its labels are the model's outputs already.
        spelled: whether labels stand in a table, where numbers may be names (:func:`merging.data.classes.spelled`).
        place: says where a label stands first, for messages.
        counts: whether somebody wrote its numbers, who may have begun at 1; a library that declares classes has not.
        scored: ``documents`` or ``questions`` where a language model is scored on it; empty elsewhere.
    """

    where: str
    names: tuple[str, ...] | None
    written: tuple[Written, ...]
    choice: Choice
    decode: Callable[[Labelling | None], Split]
    final: bool = False
    spelled: bool = False
    place: Callable[[Written], str] | None = None
    counts: bool = True
    scored: str = ""

    def load(self, classes: Sequence[str] | None, *, restrict: bool, progress: Progress | None = None) -> Split:
        """Decodes it, its labels counting the model's outputs, or the set's own classes.

        Args:
            classes: names of the model's outputs; None: nobody named them.
            restrict: whether it is scored on its own classes alone, where it has fewer.
            progress: told where that is so.

        Raises:
            TaskError: a class that the model does not have, or data that cannot be read.
        """
        if self.final or not self.written:
            return self.decode(None)
        means = self._means(classes)
        found = self._labelling(means, classes, restrict, progress or Silent())
        names = self.choice.classes if isinstance(self.choice.classes, list) else self.names or classes
        question = counted_from_one(self.where, list(means.values()), None if names is None else len(names))
        if question is not None and progress is not None and self.counts:
            progress.say(question)
        if found.groups is not None and classes is not None and progress is not None:
            covered = len({output for group in found.groups for output in group})
            if covered < len(classes):
                progress.say(f"{self.where}: scored on its {covered} of the model's {len(classes)} classes")
        return self.decode(found)

    def _means(self, classes: Sequence[str] | None) -> dict[Written, Written]:
        """What each label means: a name, or a number that counts.

        Raises:
            TaskError: a number that is no whole one, and no name of a class.
        """
        known = {*(classes or ()), *(self.choice.classes or ()), *self.choice.map}
        for label in self.written:
            if is_fraction(label) and label not in known:
                raise no_classes(self.where if self.place is None else self.place(label), label)
        if not self.spelled:
            return {label: label for label in self.written}
        return spelled(self.where, self.written, classes, self.choice)

    def _labelling(
        self, means: Mapping[Written, Written], classes: Sequence[str] | None, restrict: bool, progress: Progress
    ) -> Labelling:
        meant = tuple(dict.fromkeys(means.values()))
        found = labelling(self.where, meant, self.names, classes, self.choice, restrict=restrict)
        labels = {label: found.labels[meaning] for label, meaning in means.items() if meaning in found.labels}
        named = {label for label, meaning in means.items() if isinstance(meaning, str) and is_number(label)}
        numbers = all(map(is_number, classes or ()))
        if (
            self.spelled
            and numbers
            and found.groups is None
            and any(whole(label) != labels.get(label) for label in named)
        ):
            progress.say(f"{self.where}: labels are taken as the names of the classes, which are numbers")
        return Labelling(labels, found.groups)

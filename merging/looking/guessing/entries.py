"""The lines of a proposal: what each says, how it was found, and what else it might be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from merging.data.classes import nfc
from merging.looking.guessing import trying, variants
from merging.looking.guessing.pools import FoundPool
from merging.looking.guessing.proposal import Entry, model_value, toml
from merging.looking.guessing.proving import Architecture
from merging.looking.guessing.sets import ROLES, Roles, first_classes
from merging.looking.guessing.trying import Tried
from merging.storage.class_names import classes_of
from merging.values.statistics import LEVEL
from merging.values.wording import some

WORDS: Mapping[str, str] = {
    "held_out": "Data that choose the merge; no model was trained on them.",
    "test": "Data that choose nothing, and say what the merge is worth.",
    "train": "Training data: averages measure BatchNorm statistics on them, and some strategies learn from them.",
}
"""Part of a task → what it is for."""


def model_entry(
    chosen: Architecture,
    candidates: Sequence[Architecture],
    tries: Sequence[Tried],
    best: Tried | None,
    *,
    asked: bool,
) -> Entry:
    """The line of the architecture, with the others that have the same tensors.

    Args:
        chosen: the one that is taken.
        candidates: all that differ in what they compute, the likeliest first.
        tries: scores of guesses.
        best: the guess that is taken.
        asked: whether the user has said which.
    """
    scores = {str(each.keys["model"]): each for each in reversed(tries)}
    outputs = f", {chosen.classes} outputs" if chosen.classes else ""
    why = [f"The architecture{outputs}: {chosen.why}."]
    if best is not None:
        why.append(
            f"{best.chance.model} is right on {best.share:.0%} of {best.chance.samples} held-out samples (a guess: "
            f"{best.chance.guess:.0%})."
        )
    others = {
        f"model = {toml(model_value(each.spec))}": "has the same tensors"
        + (
            f"; scores {scores[each.spec]}, this one {scores[chosen.spec]}"
            if {each.spec, chosen.spec} <= set(scores)
            else ""
        )
        for each in candidates
        if each is not chosen
    }
    own = scores.get(chosen.spec)
    rest = [score for spec, score in scores.items() if spec != chosen.spec]
    decided = own is not None and len(rest) == len(others) and all(trying.better(own, other) for other in rest)
    guessed = "" if asked or not others or decided else "others have the same tensors"
    return Entry(key="model", value=model_value(chosen.spec), why=why, others=others, guessed=guessed)


def said_pixels(found: Architecture) -> dict[str, Any]:
    """Keys of a [task] for what the files say of pixels, as far as it is not the library's own."""
    own = variants.own_normalisation(found.source)
    keys: dict[str, Any] = {}
    for key in ("mean", "std"):
        if key in found.settings and own is not None and list(getattr(own, key)) != found.settings[key]:
            keys[key] = found.settings[key]
    size, sides = found.settings.get("size"), found.source.sides
    if size and sides is not None and (size, size) != sides and not found.source.fixed_size:
        keys["size"] = size
    return keys


def pixel_entries(said: Mapping[str, Any], best: Tried | None, tries: Sequence[Tried]) -> list[Entry]:
    """Lines for what differs from the library's own preparation: said by the files, or better on data.

    Args:
        said: keys that the files say.
        best: the guess that is taken.
        tries: scores of all guesses.
    """
    entries = list[Entry]()
    for key in ("size", "mean", "std"):
        if key in said:
            why = [] if entries else ["As the settings say in which the architecture is named."]
            entries.append(Entry(key=key, value=said[key], why=why))
        elif best is not None and key in best.keys:
            plain = next(each for each in tries if each.keys["model"] == best.keys["model"])
            why = [f"The best that was tried on held-out samples: {best.said}: {best}; as the library has it: {plain}."]
            guessed = "by a model's answers"
            entries.append(Entry(key=key, value=best.keys[key], why=[] if entries else why, guessed=guessed))
    return entries


def class_entry(pool: FoundPool, found: Architecture, roles: Roles) -> Entry:
    """The line of the classes: names of the model's outputs in their order; an empty value where nobody knows any."""
    data, where = first_classes(roles)
    own = _named_beside(pool, found)
    if data is None:
        why = [] if own is None else [f"As {own[1]} says."]
        return Entry(key="classes", value=[] if own is None else list(own[0]), why=why)
    if own is None:
        at = "" if where is None else f" of {where.place.path}"
        how = "sorted by name, as ImageFolder counts them" if list(data) == sorted(data) else "as the data count them"
        why = [f"The classes{at}, {how}."]
        return Entry(key="classes", value=list(data), why=why, guessed="nothing beside the models says the order")
    names, place = own
    if [nfc(name) for name in names] == [nfc(name) for name in data]:
        return Entry(key="classes", value=list(data), why=[f"As {place} says, and the data."])
    if {nfc(name) for name in data} <= {nfc(name) for name in names}:
        why = [f"In the order of {place}, which is not that of the data's names."]
        return Entry(key="classes", value=list(names), why=why)
    why = [f"{place} calls them otherwise: {some(list(names), 3)}."]
    return Entry(key="classes", value=list(data), why=why, guessed="the data's names, in their order")


def _named_beside(pool: FoundPool, found: Architecture) -> tuple[tuple[str, ...], str] | None:
    """The classes that a model's files say, and where; None where they do not, or number them only."""
    for where, names in classes_of(pool.models[0]).items():
        ordered = [names[index] for index in sorted(names, key=lambda index: (len(index), index))]
        numbers = all(name in (f"LABEL_{number}", str(number)) for number, name in enumerate(ordered))
        if len(ordered) == found.classes and not numbers and len(set(ordered)) == len(ordered):
            return tuple(ordered), where
    return None


def in_order(classes: Entry, best: Tried | None) -> Entry:
    """The line of the classes, in the order that a model's answers speak for."""
    if best is None or not classes.value:
        return classes
    found = trying.order_in_words(best, classes.value)
    if found is None:
        return classes if best.chance.suspicious else replace(classes, guessed="")
    order, said = found
    why = (
        f"In this order ({said}) {best.chance.model} is right on {best.share:.0%} of {best.chance.samples} held-out "
        f"samples, in the order of the names on {best.chance.right / best.chance.samples:.0%}."
    )
    return replace(classes, value=order, why=[why], guessed="by a model's answers")


def needs_classes(classes: Entry, roles: Roles, chosen: Architecture) -> bool:
    """Whether a line with the classes says something that data and model do not say by themselves."""
    data, _ = first_classes(roles)
    own = getattr(chosen.source, "classes", None)
    return bool(classes.value) and data is not None and list(own or data) != list(classes.value)


def part_entries(roles: Roles) -> list[Entry]:
    """Lines for held-out, test and training data."""
    return [
        Entry(key=part, value=own.place.spec, why=[WORDS[part]], guessed=roles.guessed.get(part, ""), place=True)
        for part in ROLES
        if (own := roles.parts.get(part)) is not None
    ]


def objective_entries(roles: Roles) -> list[Entry]:
    """The line of the objective, where a language model is scored; none elsewhere."""
    scored = roles.parts["held_out"].scored
    if scored == "documents":
        return [Entry(key="objective", value="nll", why=["The held-out data are documents: negative log-likelihood."])]
    if scored == "questions":
        why = ["The held-out data are questions: how often the likeliest choice is the right one."]
        return [Entry(key="objective", value="accuracy", why=why)]
    return []


def remarks(roles: Roles, pool: FoundPool, classes: Entry, outputs: int | None, *, listed: bool) -> list[str]:
    """Makes a sentence for all that is missing, assumed or left out.

    Args:
        roles: the sets.
        pool: the models.
        classes: the line of the classes.
        outputs: how many the model has.
        listed: whether that line is written.
    """
    notes = []
    if classes.value and outputs is not None and len(classes.value) != outputs:
        notes.append(
            f"Warning: the data name {len(classes.value)} classes, and the model has {outputs} outputs; list all, "
            "in the order of the outputs, as [task] classes, or the labels are wrong."
        )
    if "test" not in roles.parts:
        notes.append(
            "No test set: the held-out data choose the merge, so its score on them is optimistic. Keep some samples "
            "apart, and name them as test."
        )
    if pool.has_batch_statistics and "train" not in roles.parts:
        notes.append(
            "The models have BatchNorm, and no training data were found: averages keep averaged statistics. Name some "
            "as train, or pictures without labels as unlabelled."
        )
    if classes.value and not listed:
        notes.append(
            f"Classes, in the order that is assumed: {some(list(classes.value), 4)}. {' '.join(classes.why)}".strip()
        )
    reasons: dict[str, list[str]] = {}
    for path, why in roles.left_out.items():
        reasons.setdefault(why, []).append(path)
    return notes + [f"Left out, {why}: {some(paths, 3)}." for why, paths in reasons.items()][:5]


def doubt(best: Tried | None, classes: Entry) -> list[str]:
    """A warning where the best guess is no better than chance, in the words of ``merge check``."""
    if best is None or best.chance.p < LEVEL or best.chance.permuted is not None:
        return []
    return [f"Warning: {best.chance.warning(tuple(classes.value))}"]


def strategy_entry(pool: FoundPool, *, with_data: bool) -> Entry:
    """The line of the strategy: one that gives an answer soon."""
    if len(pool.models) == 1:
        return Entry(key="strategy", value="wise-ft", why=["Half way between the base and the one model."])
    if not with_data:
        why = ["The plain average of all models: without data nothing can be searched."]
        return Entry(key="strategy", value="uniform", why=why)
    others = {
        'strategy = "manifoldmix"': "searches a factor for each group of tensors; takes longer",
        'partitioner = "block"': "its groups: the blocks of the network",
    }
    why = ["The greedy soup adds a model only where that helps on the held-out data: a first answer, soon."]
    return Entry(key="strategy", value="greedy", why=why, others=others)

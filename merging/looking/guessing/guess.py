"""From a folder to a proposal: models, architecture, data, classes and normalisation, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from merging.data.text import reads_language, takes_texts
from merging.errors import PoolError, TaskError
from merging.looking.guessing import comparing, entries, trying
from merging.looking.guessing.architecture import architectures, distinct
from merging.looking.guessing.asking import Asker, Nobody
from merging.looking.guessing.checkpoints import Listed, listed
from merging.looking.guessing.places import places
from merging.looking.guessing.pools import FoundPool, grouped
from merging.looking.guessing.proposal import Entry, Proposal
from merging.looking.guessing.proving import Architecture
from merging.looking.guessing.sets import FoundSet, Roles, found_sets, with_roles
from merging.looking.guessing.trying import Tried
from merging.plugins.progress import Progress, Silent
from merging.storage.file_kind import SUFFIXES
from merging.storage.sources import identity, selected
from merging.values.wording import plural, some


@dataclass(frozen=True, kw_only=True)
class Given:
    """All that the user says up front.

    Attributes:
        folder: the folder that is looked into.
        models: files, folders or patterns; empty: what lies in the folder.
        base: the model that they were fine-tuned from.
        model: the architecture, ``timm:resnet18``.
        data: folders or sets; empty: what lies in the folder.
        tries: whether guesses are tried on held-out samples.
    """

    folder: Path
    models: Sequence[str] = ()
    base: Path | None = None
    model: str | None = None
    data: Sequence[str] = ()
    tries: bool = True


@dataclass(frozen=True, kw_only=True)
class Context:
    """Whom a guess asks, and whom it tells.

    Attributes:
        asker: answers what files leave open.
        progress: told what is done.
    """

    asker: Asker = field(default_factory=Nobody)
    progress: Progress = field(default_factory=Silent)


def propose(given: Given, context: Context | None = None) -> Proposal:
    """Looks into a folder and says what a merge.toml would hold.

    Raises:
        MergingError: there is nothing to merge, or nothing says which architecture or data are meant; the message says
            what to give.
    """
    context = context or Context()
    pool = _pool(given, context)
    data = [Path(each).expanduser() for each in given.data] or [given.folder]
    found, wrong = architectures(pool, given.model, context.progress)
    if not found:
        return _without_architecture(given, context, pool, wrong)
    source = found[0].source
    sets, refused = found_sets(data, source, texts=takes_texts(source), progress=context.progress)
    roles = with_roles(sets, found[0].classes)
    roles = replace(roles, left_out={**refused, **roles.left_out})
    roles = _asked_roles(roles, sets, context)
    if "held_out" not in roles.parts:
        return _without_data(given, pool, roles, f"The models are {found[0].spec} ({found[0].why})")
    return _whole(given, context, pool, found, roles)


def _pool(given: Given, context: Context) -> FoundPool:
    """The checkpoints that are to be merged.

    Raises:
        MergingError: there are none, or one only.
    """
    context.progress.stage(f"looking for checkpoints in {given.folder}")
    there = Listed()
    for each in given.models or [str(given.folder)]:
        folder = Path(each).expanduser()
        if folder.is_dir():
            below = listed(folder)
            there.paths += [path for path in below.paths if path not in there.paths]
            there.left_out |= below.left_out
            there.results += below.results
        else:
            there.paths += [path for path, _ in selected([each]) if path not in there.paths]
    base = given.base
    if base is not None:
        there.paths = [path for path in there.paths if identity(path) != identity(base)]
    if not there.paths:
        raise PoolError(
            f"{given.folder} holds no checkpoints ({', '.join(SUFFIXES)}, .pth.tar, folders of transformers); say "
            "where they are with `models`"
        )
    context.progress.stage(f"opening {plural(len(there.paths), 'checkpoint')}")
    pool = grouped(there.paths, base, results=there.results)
    if len(pool.groups) > 1 and pool.groups[1] == pool.groups[0]:
        pool = _asked_group(pool, there.paths, base, context)
    if len(pool.models) < 2 and pool.base is None:
        why = "; ".join(f"{reason}: {some([str(p) for p in paths], 2)}" for reason, paths in pool.left_out.items())
        raise PoolError(
            f"{pool.models[0].path} is the only model{f' ({why})' if why else ''}; merging takes two or more that "
            "agree, or one and its base; name them with `models` and `base`"
        )
    if pool.base is not None and pool.base_guessed:
        pool = _asked_base(pool, there.paths, context)
    return replace(pool, left_out={**there.left_out, **pool.left_out})


def _asked_base(pool: FoundPool, paths: Sequence[Path], context: Context) -> FoundPool:
    """Asks whether the checkpoint that is called as a base is one."""
    assert pool.base is not None  # noqa: S101 (for the type checker)
    answers = [f"{pool.base.path}", "none of them: it is a model like the others"]
    number, asked = context.asker.choose("Which is the model that the others were fine-tuned from?", answers)
    if not asked:
        return pool
    return replace(pool, base_why="given") if number == 0 else grouped(paths, based=False)


def _asked_group(pool: FoundPool, paths: Sequence[Path], base: Path | None, context: Context) -> FoundPool:
    """Asks which of two sets of models is meant, where both have as many."""
    taken = {checkpoint.path for checkpoint in pool.models} | ({pool.base.path} if pool.base else set())
    other = grouped([path for path in paths if path not in taken], base)
    choices = [some([str(checkpoint.path) for checkpoint in each.models], 3) for each in (pool, other)]
    number, asked = context.asker.choose("Two sets of models agree among themselves. Which are to be merged?", choices)
    return (pool, other)[number] if asked else replace(pool, guessed=f"as many others agree: {choices[1]}")


def _asked_roles(roles: Roles, sets: Sequence[FoundSet], context: Context) -> Roles:
    """Asks which set chooses the merge, where names do not say it and several may."""
    held = roles.parts.get("held_out")
    choices = [held, *(each for each in roles.shifts.values() if each is not held)] if held is not None else []
    if "held_out" not in roles.guessed or len(choices) < 2 or held is None:
        return roles
    paths = [each.place.path for each in choices]
    number, chosen = context.asker.choose("Which set are the held-out data, which choose the merge?", paths)
    if not chosen:
        return roles
    shifts = {each.title: each for each in choices if each is not choices[number]}
    guessed = {part: why for part, why in roles.guessed.items() if part != "held_out"}
    return replace(roles, parts={**roles.parts, "held_out": choices[number]}, shifts=shifts, guessed=guessed)


def _without_architecture(given: Given, context: Context, pool: FoundPool, wrong: Sequence[str]) -> Proposal:
    """What is left where nothing is known to have these tensors: an average without data, or a name from the user.

    Raises:
        TaskError: data are there, or a name was said that does not fit.
    """
    if not given.model and not given.data and not places(given.folder)[0]:
        return _without_data(given, pool, Roles(), "Which architecture they are is not known")
    names = list(pool.tensors)
    tensors = f"{len(names)} tensors, such as '{names[0]}' {list(pool.tensors[names[0]][0])}"
    if given.model:
        raise TaskError(wrong[0] if wrong else f"{given.model} does not have the tensors of {pool.models[0].path}")
    said = f" ({wrong[0]})" if wrong else ""
    name = context.asker.name(f"No model of timm, torchvision or open_clip has these {tensors}. Which is it?")
    if name is not None:
        return propose(replace(given, model=name), context)
    raise TaskError(
        f"{pool.models[0].path}: no model of timm, torchvision, open_clip or transformers is known to have its "
        f"{tensors}{said}; say which with `model`, such as timm:NAME, or python:module:function for one of your own"
    )


def _without_data(given: Given, pool: FoundPool, roles: Roles, known: str) -> Proposal:
    """A plain average, which needs no data.

    Raises:
        TaskError: data were named, and cannot be used.
    """
    refused = [f"{path}: {why}" for path, why in roles.left_out.items()]
    if given.data or "train" in roles.parts:
        only = "train is the only set, and its samples have trained the models" if "train" in roles.parts else ""
        where = some(list(given.data), 3) or str(given.folder)
        raise TaskError(
            f"{where}: nothing there can choose a merge ({only or '; '.join(refused[:1]) or 'none was found'}); "
            "give held-out data with `data`: a folder of class folders, a table, file.npz:KEY, …"
        )
    there = "None of the data that were found can be used" if refused else "No labelled data were found"
    notes = [
        f"{'Warning: ' if refused else ''}{known}. {there}, so nothing can be scored: a "
        "plain average is made. With data that no model was trained on, run merge init again.",
        *(f"Left out: {line}." for line in refused[:5]),
    ]
    return Proposal(
        folder=str(given.folder),
        pool=pool,
        run=[entries.strategy_entry(pool, with_data=False)],
        notes=notes,
    )


def _whole(given: Given, context: Context, pool: FoundPool, found: Sequence[Architecture], roles: Roles) -> Proposal:
    """Everything: the architecture and pixels that score best, the order of the classes, the sets."""
    candidates, said = distinct(found), entries.said_pixels(found[0])
    classes = entries.class_entry(pool, candidates[0], roles)
    keys = {"held_out": roles.parts["held_out"].place.spec, **said}
    keys |= {"classes": list(classes.value)} if classes.value else {}
    tried = list[Tried]()
    language = reads_language(candidates[0].source)
    if given.tries and not language and not candidates[0].spec.startswith("python:"):
        tried = comparing.tries(pool, candidates, keys, context.progress)
    best = trying.best_of(tried) if tried else None
    chosen, asked = _chosen(candidates, best, given, context)
    classes = entries.in_order(classes, best)
    listed = entries.needs_classes(classes, roles, chosen)
    return Proposal(
        folder=str(given.folder),
        pool=pool,
        task=[
            entries.model_entry(chosen, candidates, tried, best, asked=asked),
            *entries.pixel_entries(said, best, tried),
            *([classes] if listed else []),
            *entries.part_entries(roles),
        ],
        shifts=[Entry(key=name, value=each.place.spec, place=True) for name, each in roles.shifts.items()],
        run=[entries.strategy_entry(pool, with_data=True), *entries.objective_entries(roles)],
        notes=[*entries.remarks(roles, pool, classes, chosen.classes, listed=listed), *entries.doubt(best, classes)],
        scores={each.said: each.share for each in tried},
    )


def _chosen(
    candidates: Sequence[Architecture], best: Tried | None, given: Given, context: Context
) -> tuple[Architecture, bool]:
    """The architecture that is taken, and whether the user has said so."""
    if best is not None:
        return next(each for each in candidates if each.spec == best.keys["model"]), given.model is not None
    if len(candidates) < 2:
        return candidates[0], given.model is not None
    question = "Several architectures have exactly these tensors. Which is it?"
    number, asked = context.asker.choose(question, [each.spec for each in candidates])
    return candidates[number], asked

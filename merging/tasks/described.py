"""A task from the [task] part of merge.toml: a model's name and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merging.data.classes import in_order_of_text, nfc
from merging.data.damage import CORRUPT
from merging.data.form import is_parts
from merging.data.images import Preparation, is_images, normalise, preparation
from merging.data.opened import Opened
from merging.data.opening import check_keys, open_data
from merging.data.text import reads_language
from merging.errors import TaskError
from merging.models.catalogue import model_source
from merging.plugins.progress import Progress, Silent
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, UNLABELLED, Split, Task, identity
from merging.tasks.catalogue import named_task


def described_task(table: Mapping[str, Any], progress: Progress | None = None) -> Task:
    """Makes the task that a [task] table describes.

    Args:
        table: ``name`` of a registered task with what that takes, perhaps in ``options``; or ``model``, ``held_out``
            and perhaps ``test``,
            ``shifts`` (name → data), ``train``, ``unlabelled``, as :func:`merging.data.opening.load_data` reads them;
            ``classes``: names of the model's outputs, in order (default: those of the model's folder, else of the
            training or held-out data); ``templates``: prompts for the zero-shot head of a whole CLIP; ``corrupt``:
            share of a set's images that may be damaged; ``mean`` and ``std`` per channel and ``size`` in pixels, or
            ``"stored"`` (default: the model's own, see :func:`merging.data.images.preparation`).
        progress: told how far decoding is.

    Raises:
        TaskError: a model or a data set that does not exist, or classes that do not fit.
    """
    if table.get("name"):
        rest = {key: value for key, value in table.items() if key not in ("name", "options")}
        options = table.get("options", {})
        if twice := sorted(set(rest) & set(options)):
            raise TaskError(f"[task] says {twice[0]} twice, itself and in options; say it once")
        return named_task(table["name"], {**rest, **options}, progress)
    if table.get("options"):
        raise TaskError("[task] options are those of a registered task; give its name")
    shifts = dict(table.get("shifts", {}))
    for part in ("held_out", "train", "test", "unlabelled"):
        check_keys(table.get(part), f"[task.{part}]")
    for name, data in shifts.items():
        check_keys(data, f"[task.shifts.{name}]")
    source, news = model_source(table["model"]), progress or Silent()
    for name in shifts:
        if name in (HELD_OUT, "train", UNLABELLED) or (name == "test" and table.get("test")):
            raise TaskError(f"a shifted set is called '{name}', as another part of the task is; give it another name")
    mean, std = table.get("mean"), table.get("std")
    if len(mean or (0,) * 3) != 3 or len(std or (1,) * 3) != 3 or min(std or (1,)) <= 0:
        raise TaskError("mean and std need three numbers each, std above 0")
    wanted = {HELD_OUT: table["held_out"], "train": table.get("train"), "test": table.get("test"), **shifts}
    how = preparation(source, table.get("size"), table.get("corrupt", CORRUPT), mean or None, std or None)
    for note in how.transform.notes:
        news.say(note)
    for key in ("classes", "corrupt") if reads_language(source) else ():
        if table.get(key) is not None:
            raise TaskError(f"[task] {key} says nothing to a causal language model such as {source.spec}; leave it out")
    own = table.get("classes") or getattr(source, "classes", None)
    opened: dict[str, dict[str, Opened]] = {}
    for name, data in wanted.items():
        parts = data if isinstance(data, Mapping) and is_parts(data) else {"": data} if data is not None else {}
        opened |= {name: {part: open_data(each, source, how, progress=news) for part, each in parts.items()}}
    opened = {name: parts for name, parts in opened.items() if parts}
    classes = tuple(own) if own else _named(opened)
    _check_names(classes)
    if not own and classes and (said := in_order_of_text(table["model"], classes)) is not None:
        news.say(said)
    if classes or table.get("templates"):
        source = source.named(classes or (), tuple(table.get("templates") or ()))
    splits = {
        name: _loaded(parts, classes, restrict=name not in (HELD_OUT, "train"), progress=news)
        for name, parts in opened.items()
    }
    if table.get("unlabelled") is not None:
        extra = open_data(table["unlabelled"], source, how, labelled=False, progress=news)
        splits[UNLABELLED] = extra.load(None, restrict=False)
    if "train" in splits and splits["train"].classes is not None:
        raise TaskError("train: a sample to learn from has one class; leave out maps to several, and lists of some")
    return Task(
        name=source.spec,
        build=source.build,
        fresh=source.module,
        held_out=splits[HELD_OUT],
        tests={name: splits[name] for name in ("test", *shifts) if name in splits},
        shifts=tuple(shifts),
        prepare=normalise(how.transform) if _are_images(table, splits, how) else identity,
        train=splits.get("train"),
        unlabelled=splits.get(UNLABELLED),
        classes=classes or (),
    )


def _loaded(parts: Mapping[str, Opened], classes: Sequence[str] | None, *, restrict: bool, progress: Progress) -> Split:
    """A set, or several named ones as one."""
    loaded = {name: part.load(classes, restrict=restrict, progress=progress) for name, part in parts.items()}
    return loaded[""] if "" in loaded else Split.joined(loaded)


def _named(opened: Mapping[str, Mapping[str, Opened]]) -> tuple[str, ...] | None:
    """The model's classes, where nobody lists them: those of the training data, else of the held-out data.

    Raises:
        TaskError: that set's own classes are said to be something else.
    """
    for part in ("train", HELD_OUT):
        there = opened.get(part, {})
        if len({each.names for each in there.values()}) > 1:
            raise TaskError(f"{part}: its parts name other classes; say [task] classes, the model's outputs, in order")
        found = next(iter(there.values()), None)
        if found is not None and found.names is not None:
            if found.choice.map or found.choice.classes is not None:
                raise TaskError(f"{part}: its classes are chosen or mapped; say [task] classes, the model's outputs")
            return found.names
    return None


def _check_names(classes: tuple[str, ...] | None) -> None:
    composed = [nfc(name) for name in classes or ()]
    for name in composed:
        if composed.count(name) > 1:
            raise TaskError(f"[task] classes names '{name}' twice; each output has a name of its own")


def _are_images(table: Mapping[str, Any], splits: Mapping[str, Split], how: Preparation) -> bool:
    """Whether the samples are images, which are normalised; everything else goes into the model as it is.

    Raises:
        TaskError: sets of several kinds, or normalisation of something else than images.
    """
    kinds = {name: (split.inputs.dtype, split.inputs.ndim) for name, split in splits.items()}
    for name, (dtype, dimensions) in kinds.items():
        own, others = kinds[HELD_OUT]
        if (dtype, dimensions) != (own, others):
            raise TaskError(
                f"{name} holds {dtype} with {dimensions} dimensions, the held-out data {own} with {others}; all sets "
                "of a task are of one kind (texts: all of them single, or all pairs)"
            )
    inputs = splits[HELD_OUT].inputs
    images = not isinstance(inputs, Sequences) and is_images(inputs)
    for key in ("mean", "std", "size"):
        if not images and table.get(key) is not None and (splits[HELD_OUT].inputs.ndim != 4 or how.transform.divided):
            raise TaskError(f"[task] {key} is for images (uint8, N × H × W × 3); leave it out")
    return images

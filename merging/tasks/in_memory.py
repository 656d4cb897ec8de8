"""``merging.task``: a task of what a notebook has, a module and data in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence, Set
from typing import Any

import numpy as np
from torch import Tensor, nn

from merging.data.images import is_images, normalise
from merging.data.in_memory import Held, held
from merging.data.text import reads_language
from merging.data.texts_in_memory import texts_held
from merging.errors import TaskError
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.models.transform import Normalisation, as_stored
from merging.plugins.bar import taken_away
from merging.plugins.keywords import expected
from merging.plugins.progress import Progress
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, Split, Task, identity
from merging.plugins.user_code import kind_of
from merging.plugins.watcher import UNSAID, Watcher


@taken_away()
def task(
    model: nn.Module | Callable[..., nn.Module] | str,
    held_out: Any,
    *,
    tests: Any = None,
    shifts: Mapping[str, Any] | None = None,
    train: Any = None,
    classes: int | Sequence[str] | None = None,
    prepare: Callable[[Tensor], Tensor] | Normalisation | None = None,
    progress: Progress | bool | None = UNSAID,
) -> Task:
    """Makes a task of a model and of data in memory, which are read once.

    Each set is ``(inputs, labels)`` as tensors, arrays or lists; a torch ``Dataset`` or ``DataLoader``, or anything
    else whose items are ``(input, label)``, such as an ``ImageFolder`` with its transform; or a :class:`Split`. Labels
    are whole numbers of any kind, one-hot rows, or names; other numbers are to be met (an objective such as ``mse``).

    Of a causal language model, ``"transformers:FOLDER"``, a set is a list of texts, or of dicts with ``text``; with
    ``prompt`` and ``completion``; with ``messages``; or with ``question``, ``choices`` and ``answer``; a data frame or
    data set with such columns; a path, or a table with one; or a mapping from names to such sets, which are one set.

    Args:
        model: a module, of which the architecture alone is used; a function that makes one, of nothing or of the pool;
            or the name of one, such as ``"timm:resnet18"``.
        held_out: the data by which models and factors are selected; never a test set.
        tests: data of the test set, or name → data of several.
        shifts: name → data of shifted sets, whose scores are averaged.
        train: training data, for methods that learn and for BatchNorm statistics.
        classes: names of the model's outputs, in order, or their number; default: as the data name them.
        prepare: turns a batch of inputs into what the model takes, on the device; or the :class:`Normalisation` of
            pictures (uint8, ``(N, H, W, 3)``).
        progress: told how far reading is; True: a bar, False: nobody, by default a bar in notebooks.

    Raises:
        TaskError: something of another kind, labels that are no classes, or pictures with nothing that prepares them.
    """
    told = Watcher.told(progress)
    shifts = {} if shifts is None else shifts
    if not isinstance(tests, Mapping):
        tests = {} if tests is None else {"test": tests}
    expected("shifts", shifts, Mapping, "a mapping from names to data")
    shifted = dict(shifts)
    for name in shifted:
        if name in tests:
            raise TaskError(f"a test set and a shifted set are both called '{name}'; give one of them another name")
    parts = {HELD_OUT: held_out, **({} if train is None else {"train": train}), **tests, **shifted}
    for name in parts:
        expected("the name of a set", name, str, "a text")
    source = model_source(model) if isinstance(model, str) else None
    if source is not None and reads_language(source):
        return _of_texts(source, parts, tuple(shifted), told, {"classes": classes, "prepare": prepare})
    read = {name: held(data, name, told) for name, data in parts.items()}
    names = _names(classes, read)
    splits = {name: each.counted(names) for name, each in read.items()}
    if outputs := len(names) or _count(classes):
        for name, split in splits.items():
            _check_labels(split, name, outputs)
    build, fresh, called = _model(model)
    return Task(
        name=called,
        build=build,
        fresh=fresh,
        held_out=splits[HELD_OUT],
        tests={name: splits[name] for name in (*tests, *shifted)},
        shifts=tuple(shifted),
        prepare=_prepare(prepare, splits[HELD_OUT], model),
        train=splits.get("train"),
        classes=names,
    )


def _of_texts(
    source: ModelSource,
    parts: Mapping[str, Any],
    shifts: tuple[str, ...],
    told: Progress,
    unused: Mapping[str, Any],
) -> Task:
    """A task of a causal language model and texts.

    Raises:
        TaskError: something was said that it has no use for, or a set is none.
    """
    for key, value in unused.items():
        if value is not None:
            raise TaskError(f"{key} says nothing to a causal language model such as {source.spec}; leave it out")
    splits = {name: texts_held(each, name, source, told) for name, each in parts.items()}
    for name, split in splits.items():
        if not isinstance(split.inputs, Sequences):
            raise TaskError(f"{name} holds no texts, and {source.spec} reads nothing else")
    return Task(
        name=source.spec,
        build=source.build,
        fresh=source.module,
        held_out=splits[HELD_OUT],
        tests={name: split for name, split in splits.items() if name not in (HELD_OUT, "train")},
        shifts=shifts,
        train=splits.get("train"),
    )


def _names(classes: Any, read: Mapping[str, Held]) -> tuple[str, ...]:
    """Names of the model's outputs: those that are given, else those of the training or the held-out data."""
    if _count(classes):
        return ()
    if classes is not None:
        names = list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str | bytes | Set) else []
        names = list(classes) if isinstance(classes, KeysView) else names
        if not names or not all(isinstance(name, str) for name in names):
            raise TaskError(
                f"classes are {kind_of(classes)}; they are the names of the model's outputs, or their number"
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TaskError(f"two classes are called '{twice}'; each output of the model needs a name of its own")
        return tuple(map(str, names))
    told = [each for name in ("train", HELD_OUT) if (each := read.get(name)) is not None]
    return next((each.names for each in told if each.names), next((each.written for each in told if each.written), ()))


def _count(classes: Any) -> int:
    """The number of classes, where that is what was given; else 0."""
    whole = isinstance(classes, int | np.integer) and not isinstance(classes, bool)
    return max(int(classes), 0) if whole else 0


def _check_labels(split: Split, name: str, outputs: int) -> None:
    """Refuses a label that no output stands for."""
    if split.categorical and split.classes is None and not 0 <= int(split.labels.max()) < outputs:
        raise TaskError(f"{name}: label {int(split.labels.max())} is none of {outputs} classes, which count from 0")


def _model(model: object) -> tuple[Callable[..., nn.Module], Callable[[int], nn.Module] | None, str]:
    """What makes the module, what makes it for a number of classes, and the task's name.

    Raises:
        TaskError: it is no model.
    """
    if isinstance(model, str):
        source = model_source(model)
        return source.build, source.module, source.spec
    if isinstance(model, nn.Module):
        return (lambda: copy.deepcopy(model)), None, type(model).__name__
    if callable(model):
        name = getattr(model, "__name__", type(model).__name__)
        return model, None, name if name.isidentifier() else "in-memory"
    raise TaskError(
        f"model is {kind_of(model)}; give a module, a function that makes one, or a name such as timm:resnet18"
    )


def _prepare(given: object, split: Split, model: object) -> Callable[[Tensor], Tensor]:
    """What turns a batch into what the model takes.

    Raises:
        TaskError: bytes of pictures, and nobody says how a model takes them.
    """
    pictures = not isinstance(split.inputs, Sequences) and is_images(split.inputs)
    if isinstance(given, Normalisation):
        if not pictures:
            raise TaskError("prepare is a Normalisation, which is for pictures: uint8, (N, H, W, 3)")
        return normalise(as_stored("pictures", given))
    if given is not None:
        if not callable(given):
            raise TaskError(f"prepare is {kind_of(given)}; it is a function of a batch, or a merging.Normalisation")
        return given
    if pictures and isinstance(model, str):
        return normalise(model_source(model).transform(None, None, None))
    if isinstance(split.inputs, Sequences):
        return identity
    if split.inputs.element_size() == 1 and split.inputs.ndim > 2:
        raise TaskError(
            f"inputs are bytes of pictures, {list(split.inputs.shape)}; give prepare, such as "
            + ("merging.Normalisation(mean=…, std=…)" if pictures else "lambda batch: batch.float() / 255")
        )
    return identity

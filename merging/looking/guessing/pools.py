"""Which checkpoints belong together: those whose tensors agree; and which of them the others were fine-tuned from."""

from __future__ import annotations

import contextlib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merging.errors import CheckpointError, MergingError
from merging.looking.guessing.earlier import written_by
from merging.storage.checkpoint import Checkpoint, stem
from merging.storage.dtypes import is_floating
from merging.storage.pool import ModelPool
from merging.storage.raw import has_only_finite, same_bits
from merging.storage.sources import natural_key, short_names
from merging.values.partition import TensorInfo

WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "net", "state_dict_ema", "model_ema", "ema")
"""Keys under which training programs keep a model, the weights that were trained before their average."""
_BASE = re.compile(
    r"(.*[-_.])?(base|pretrained|pretrain|zero[-_]?shot|init(ial)?|start|foundation)([-_.].*)?", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class FoundPool:
    """The checkpoints that may be merged with one another.

    Attributes:
        models: the checkpoints, in natural order.
        key: key of the state dict in their files; empty where there is one only.
        keys: keys of other state dicts in them, such as ``state_dict_ema``.
        base: the model that they were fine-tuned from, as far as that is known.
        base_why: says how that was found.
        left_out: why other checkpoints were not taken → these.
        groups: numbers of checkpoints that agree with one another, the largest first.
        guessed: why other checkpoints may be meant; empty where nothing speaks for that.
    """

    models: tuple[Checkpoint, ...]
    key: str = ""
    keys: tuple[str, ...] = ()
    base: Checkpoint | None = None
    base_why: str = ""
    left_out: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    guessed: str = ""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → (shape, dtype name)."""
        return self.models[0].tensors

    @property
    def base_guessed(self) -> bool:
        """Whether nothing but its name says that the base is one."""
        return self.base is not None and self.base_why.startswith("by its name")

    @property
    def first(self) -> ModelPool:
        """A pool of the first model alone."""
        name = short_names([checkpoint.path for checkpoint in self.models])[0]
        return ModelPool([Checkpoint(self.models[0].path, name, self.models[0].key)])

    @property
    def has_batch_statistics(self) -> bool:
        """Whether the models have BatchNorm, whose statistics averages need anew."""
        return any(name.endswith("running_mean") for name in self.tensors)


def grouped(
    paths: Sequence[Path], base: Path | None = None, *, based: bool = True, results: Sequence[Path] = ()
) -> FoundPool:
    """Takes the largest set of checkpoints whose tensors agree in names, shapes and dtypes.

    Args:
        paths: checkpoints, in natural order.
        base: the model that they were fine-tuned from, where the user says it.
        based: whether one of them may be the base.
        results: folders of earlier runs, whose merges may lie among the checkpoints, too.

    Raises:
        CheckpointError: not one of them can be read; the first reason is said.
    """
    opened, keys, left = dict[Path, Checkpoint](), dict[Path, tuple[str, ...]](), defaultdict[str, list[Path]](list)
    for path in paths:
        try:
            opened[path], keys[path] = opened_at(path)
        except MergingError as error:
            left[f"cannot be read: {error}"].append(path)
    for path, folder in _merges_among(opened, results):
        left[f"the merge of {folder}"].append(path)
        del opened[path]
    if not opened:
        raise CheckpointError(next(iter(left)).removeprefix("cannot be read: ") if left else "no models given")
    groups: dict[object, list[Path]] = defaultdict(list)
    for path, checkpoint in opened.items():
        groups[frozenset((name, tuple(shape), dtype) for name, (shape, dtype) in checkpoint.tensors.items())].append(
            path
        )
    ordered = sorted(groups.values(), key=lambda group: -len(group))
    taken = ordered[0]
    for group in ordered[1:]:
        left[_difference(opened[taken[0]], opened[group[0]])] += group
    base, why = (base, "given") if base is not None or not based else _base_of(taken)
    for path in [path for path in taken if path == base]:
        taken.remove(path)
    for path in [path for path in taken if not _sound(opened[path])]:
        left["holds NaN or infinite values: the run diverged"].append(path)
        taken.remove(path)
    for path, first in _twins(sorted(taken, key=lambda path: natural_key(str(path))), opened):
        left[f"the same weights as {first}"].append(path)
        taken.remove(path)
    if not taken:
        raise CheckpointError(next(iter(left), "no models are left besides the base"))
    chosen = {opened[path].key for path in taken}
    return FoundPool(
        models=tuple(opened[path] for path in taken),
        key=next(iter(chosen)) if len(chosen) == 1 else "",
        keys=tuple(dict.fromkeys(other for path in taken for other in keys[path] if other not in chosen)),
        base=None if base is None else opened.get(base) or opened_at(base)[0],
        base_why=why,
        left_out=dict(left),
        groups=tuple(len(group) for group in ordered),
    )


def opened_at(path: Path) -> tuple[Checkpoint, tuple[str, ...]]:
    """A checkpoint, and the keys of all state dicts in its file, where these are several.

    Raises:
        CheckpointError: the file cannot be read, or holds several and none under a name that is known.
    """
    try:
        return Checkpoint(path), ()
    except CheckpointError as error:
        there = tuple(re.findall(r"'([^']+)' \(", str(error))) if "sets of tensors" in str(error) else ()
        for known in WEIGHTS:
            if known in there:
                return Checkpoint(path, "", known), there
        raise


def _merges_among(opened: Mapping[Path, Checkpoint], results: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Checkpoints that hold, bit for bit, what an earlier run has written; each with the run's folder."""
    folders, known = dict(written_by(results)), dict[Path, Checkpoint]()
    for path in folders:
        with contextlib.suppress(MergingError):
            known[path] = Checkpoint(path)
    twins = _twins([*known, *opened], {**opened, **known}) if known else []
    return [(path, folders[first]) for path, first in twins if first in known and path in opened]


def _base_of(paths: Sequence[Path]) -> tuple[Path | None, str]:
    """The checkpoint that is called as a base is, or lies beside the record of ``merge finetune``."""
    for path in paths:
        if path.name in ("base.safetensors", "base") and (path.parent / "finetune.json").is_file():
            return path, "merge finetune started from it"
    named = [path for path in paths if _BASE.fullmatch(stem(path) if path.is_file() else path.name)]
    if len(named) == 1 and len(paths) > 1:
        return named[0], "by its name; its tensors agree"
    return None, ""


def _difference(first: Checkpoint, other: Checkpoint) -> str:
    """Says in which tensor two checkpoints differ, shortly."""
    for name, (shape, dtype) in other.tensors.items():
        if name not in first.tensors:
            return f"other tensors: only there '{name}'"
        own_shape, own_dtype = first.tensors[name]
        if shape != own_shape:
            return f"other shapes: '{name}' is {list(shape)} there, {list(own_shape)} in the models"
        if dtype != own_dtype:
            return f"'{name}' is {dtype} there, {own_dtype} in the models"
    lost = next(name for name in first.tensors if name not in other.tensors)
    return f"other tensors: '{lost}' is not there"


def _sound(checkpoint: Checkpoint) -> bool:
    """Whether its last tensors, where a head is, hold numbers: a run that diverged has NaN in all of them."""
    names = [name for name, (_, dtype) in checkpoint.tensors.items() if is_floating(dtype)]
    return all(has_only_finite(checkpoint.read(name)) for name in names[-2:])


def _twins(paths: Sequence[Path], opened: Mapping[Path, Checkpoint]) -> list[tuple[Path, Path]]:
    """Checkpoints with the weights of an earlier one, and that one; all is compared where small parts are equal."""
    found: list[tuple[Path, Path]] = []
    firsts: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        own = opened[path]
        small = sorted(own.tensors, key=lambda name: (math.prod(own.tensors[name][0]), name))
        values = b"".join(own.read(name).flatten()[:16].double().numpy().tobytes() for name in small[-3:])
        probe = (frozenset((name, tuple(shape), dtype) for name, (shape, dtype) in own.tensors.items()), values)
        twin = next((p for p in firsts[probe] if all(same_bits(opened[p].read(n), own.read(n)) for n in small)), None)
        if twin is None:
            firsts[probe].append(path)
        else:
            found.append((path, twin))
    return found

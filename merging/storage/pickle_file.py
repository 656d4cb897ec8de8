"""Files of ``torch.save``: loaded without running code, and the state dict found in what a training program wrote."""

from __future__ import annotations

import argparse
import pickletools
import re
import types
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.errors import CheckpointError, unknown
from merging.storage.file_kind import readable_name

if TYPE_CHECKING:
    from torch import Tensor

TOP = "."
"""The key of tensors that stand at the top of a file, beside a mapping of others."""
OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what ``torch.save`` wrote before PyTorch 1.6: a pickled magic number."""
LIGHTNING = "pytorch-lightning_version"
"""The key by which a checkpoint of Lightning is known."""
_TRAINING = re.compile(
    r"(.*_)?optim(izer)?(s|_.*)?|opt_state.*|(lr_)?sched(uler)?(s|_.*)?|(grad_|loss_|amp_)?scaler(_.*)?|amp|callbacks|loops|"
    r"(.*_)?rng(_.*)?|(.*_)?random(_state)?s?",
    re.IGNORECASE,
)
"""Names of what a training program keeps for itself, tensors included: never the model."""
_LARGER = 8
_ROOM = 64 << 20
"""Tensors may be so many times the file's bytes (shared storages), and so many bytes more (small expanded buffers)."""


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        tensors: the state dict, names as stored.
        notes: what was chosen and left out.
        lightning: whether Lightning wrote it.
        content: all that is in it, such as the names of classes beside the weights.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    lightning: bool = False
    content: Any = None


@dataclass(kw_only=True)
class _Place:
    """A mapping that holds tensors directly, or a list of some."""

    where: tuple[str, ...]
    tensors: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    named: bool = True
    training: bool = False

    @property
    def key(self) -> str:
        return ".".join(self.where) or TOP

    @property
    def numbers(self) -> bool:
        """Whether they are single numbers all, such as a loss."""
        return all(tensor.numel() <= 1 for tensor in self.tensors.values())

    def same(self, other: _Place) -> bool:
        """Whether both are one state dict, pickled once and named twice."""
        return [(name, t.data_ptr(), t.shape) for name, t in self.tensors.items()] == [
            (name, t.data_ptr(), t.shape) for name, t in other.tensors.items()
        ]

    def __str__(self) -> str:
        if not self.named:
            return f"'{self.key}' (a list of {len(self.tensors)} tensors without names)"
        return f"'{self.key}' ({len(self.tensors)} tensor{'s' if len(self.tensors) > 1 else ''})"


def load(path: Path, key: str = "") -> Found:
    """Reads a file by memory map, without running code, and finds its state dict.

    Args:
        path: written by ``torch.save``.
        key: of the mapping that is the state dict, dotted where it is nested, such as ``state_dict_ema``; empty: the
            only mapping of tensors there is.

    Raises:
        CheckpointError: the file wants to run code, is larger in memory than on disk, holds no state dict, or several
            of which none was chosen.
    """
    import torch

    _check_pickle(path)
    with torch.serialization.safe_globals(_harmless()), readable_name(path) as name:
        try:
            content = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises whatever the bytes provoke; each is a bad file
            raise CheckpointError(f"{path}: {_reason(path, error)}") from None
    found = _chosen(path, content, key)
    size = sum(tensor.numel() * tensor.element_size() for tensor in found.tensors.values())
    if size > _LARGER * path.stat().st_size + _ROOM:
        raise CheckpointError(
            f"{path}: its tensors would take {size / 1e9:,.1f} GB, the file has {path.stat().st_size:,} bytes; save "
            "them with .contiguous()"
        )
    return found


def _harmless() -> list[Any]:
    """Classes that hold values and do nothing when they are made: what training programs keep beside the weights."""
    import datetime
    import decimal
    import pathlib

    core = np._core if hasattr(np, "_core") else np.core
    array = core.multiarray
    dtypes = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType") and name != "ObjectDType"]
    plain = (
        argparse.Namespace,
        types.SimpleNamespace,
        decimal.Decimal,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        pathlib.PurePath,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        frozenset,
        slice,
        list,
        dict,
        int,
        float,
        bool,
    )
    # torch's unpickler fills dicts and lists only; these two are taken for what they hold.
    filled: list[tuple[Any, str]] = [(_as_dict, "collections.defaultdict"), (_as_list, "collections.deque")]
    # A path of another system cannot be made here, and nobody opens it.
    paths: list[tuple[type, str]] = [(pathlib.PurePosixPath, f"pathlib.{name}") for name in ("PosixPath", "Path")]
    paths += [(pathlib.PureWindowsPath, "pathlib.WindowsPath")]
    paths += [(kind, f"pathlib._local.{name.partition('.')[2]}") for kind, name in paths]  # Python 3.13
    scalars = [(array.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    arrays = [(array._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    named = [(dict, f"{package}.utilities.data.AttributeDict") for package in ("lightning.fabric", "lightning_fabric")]
    return [*plain, np.ndarray, np.dtype, *dtypes, *paths, *scalars, *arrays, *named, *filled]


def _as_dict(*factory: Any) -> dict[Any, Any]:
    del factory
    return {}


def _as_list(items: Any = (), maxlen: int | None = None) -> list[Any]:
    del maxlen
    return list(items)


def _check_pickle(path: Path) -> None:
    """Refuses a pickle that asks for memory by a number alone: ``bytearray(5_000_000_000)`` takes twenty bytes.

    Raises:
        CheckpointError: it does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            content = archive.read(name) if name is not None else b""
    except Exception:  # no zip, or damaged, which raises what the bytes provoke: torch.load says what it is
        return
    if b"bytearray" in content and _asks_for_bytes(content):
        raise CheckpointError(f"{path}: holds a bytearray, which no state dict needs; save the state dict alone")


def _asks_for_bytes(content: bytes) -> bool:
    try:
        asked = {argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)}
    except ValueError:  # damaged: torch.load says so
        return False
    return bool(asked & {"bytearray", "builtins bytearray", "__builtin__ bytearray"})


def _reason(path: Path, error: Exception) -> str:
    """Why ``torch.load`` gave up, in words."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    said = str(error)
    if "mmap" in said and is_old_format(path):
        return "it is in torch's old format; load it and save it again with torch.save"
    if "weights_only" in said or "Unsupported" in said:
        try:
            known = {
                f"{item.__module__}.{item.__qualname__}" if not isinstance(item, tuple) else item[1]
                for item in _harmless()
            }
            wanted = [name for name in get_unsafe_globals_in_checkpoint(path) if name not in known]
        except Exception:  # the scan of damaged bytes raises as the load did
            wanted = []
        what = f" (of {', '.join(wanted[:3])}{', …' if len(wanted) > 3 else ''})" if wanted else ""
        return f"it is a pickle that wants to run code{what}, not a plain state dict; save model.state_dict() instead"
    if not zipfile.is_zipfile(path):
        return "it is a plain pickle, not a file of torch.save; load it with its own program and save the state dict"
    return f"torch.load cannot read it ({type(error).__name__}); save it again"


def _chosen(path: Path, content: Any, key: str) -> Found:
    """The state dict among a file's mappings of tensors."""
    places = list(_places(content))
    lightning = isinstance(content, Mapping) and LIGHTNING in content
    models = [place for place in places if not place.numbers and not place.training]
    models = [place for index, place in enumerate(models) if not any(place.same(before) for before in models[:index])]
    models = models or [place for place in places if place.named and not place.training]
    if key:
        chosen = next((place for place in places if place.key == key and place.named), None)
        if chosen is None:
            there = [place.key for place in places if place.named]
            raise CheckpointError(f"{path}: {unknown('mapping of tensors', key, there)}")
    elif len(models) == 1 and models[0].named:
        chosen = models[0]
    elif not models:
        keys = f"; its keys: {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise CheckpointError(f"{path}: holds no state dict{keys}")
    else:
        named = [place.key for place in models if place.named]
        example = next((key for key in named if key in ("state_dict", "model")), named[0] if named else "KEY")
        raise CheckpointError(
            f"{path}: holds {len(models)} sets of tensors: {', '.join(map(str, models))}; choose one with --key "
            f"{example}, or models = [{{ path = …, key = '{example}' }}]"
        )
    if chosen.arrays:
        raise CheckpointError(
            f"{path}: '{chosen.arrays[0]}' is a NumPy array beside tensors ({len(chosen.arrays)} such); make them "
            "tensors, then save again"
        )
    return Found(chosen.tensors, tuple(_notes(chosen, places)), lightning, content)


def _notes(chosen: _Place, places: Sequence[_Place]) -> Iterator[str]:
    if chosen.where:
        yield f"state dict found under '{chosen.key}'"
    beside = [place for place in places if place is not chosen and not place.same(chosen)]
    sets = [str(place) for place in beside if not place.numbers and any(map(_is_float, place.tensors.values()))]
    if sets:
        yield f"left out: {', '.join(sets)}"
    numbers = [name for place in beside if place.numbers and not place.training for name in place.tensors]
    if numbers:
        yield f"ignored single numbers: {', '.join(numbers[:5])}"
    if chosen.others:
        yield f"ignored what is not a tensor: {', '.join(chosen.others[:5])}"


def _is_float(tensor: Any) -> bool:
    return bool(tensor.is_floating_point())


def _places(
    content: Any, where: tuple[str, ...] = (), seen: set[int] | None = None, *, training: bool = False
) -> Iterator[_Place]:
    """Every mapping or list that holds tensors, marked where its name says that it is training state."""
    from torch import Tensor

    seen = set() if seen is None else seen
    if id(content) in seen and len(where) != 1:  # two names at the top may mean one state dict; deeper it is a knot
        return
    seen.add(id(content))
    if isinstance(content, argparse.Namespace | types.SimpleNamespace):
        content = vars(content)
    if isinstance(content, Mapping):
        if {"state", "param_groups"} <= set(map(str, content)):  # an optimizer's
            return
        entries = [(str(name), value) for name, value in content.items()]
    elif isinstance(content, list | tuple):
        entries = [(str(number), value) for number, value in enumerate(content)]
    else:
        return
    kept = [(name, value) for name, value in entries if not _is_random(name, value)]
    tensors = {name: value for name, value in kept if isinstance(value, Tensor)}
    if tensors:
        others = tuple(name for name, value in entries if name not in tensors)
        arrays = tuple(name for name, value in kept if isinstance(value, np.ndarray) and value.size > 1)
        yield _Place(
            where=where,
            tensors=tensors,
            others=others,
            arrays=arrays,
            named=isinstance(content, Mapping),
            training=training,
        )
    for name, value in kept:
        yield from _places(value, (*where, name), seen, training=training or bool(_TRAINING.fullmatch(name)))


def _is_random(name: str, value: Any) -> bool:
    """Whether an entry is the state of a random generator: bytes in a row, under a name that says so."""
    from torch import Tensor, uint8

    state = isinstance(value, Tensor) and value.dtype == uint8 and value.ndim == 1
    return state and bool(_TRAINING.fullmatch(name)) and "." not in name


def is_old_format(path: Path) -> bool:
    """Whether PyTorch before 1.6 wrote the file: such a file cannot be mapped."""
    with path.open("rb") as file:
        return file.read(len(OLD_MAGIC)) == OLD_MAGIC

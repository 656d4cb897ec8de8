"""The classes that a model's files say it has: configuration, lists beside it, a safetensors file's metadata."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import numbers
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from merging.errors import DAMAGED, CheckpointError
from merging.storage.companions import read_companion, readable
from merging.storage.model_folder import SMALL

KEYS = ("id2label", "label2id", "label_names", "class_names", "class_to_idx", "idx_to_class", "classes", "labels")
"""Keys under which libraries keep their classes, wherever they stand in a file."""
_BY_NAME = ("label2id", "class_to_idx")
FILES = (
    "config.json",
    "labels.txt",
    "classes.txt",
    "class_names.txt",
    "labels.json",
    "classes.json",
    "class_names.json",
    "id2label.json",
    "label2id.json",
    "class_to_idx.json",
    "index_to_name.json",
    "imagenet_class_index.json",
    "label_map.json",
    "labelmap.txt",
)
"""Names of the files that may say the classes."""
_DEEP = 32

Names = Mapping[str, str]
"""Index → name of a class, both as text."""


class Model(Protocol):
    """A checkpoint, as far as its classes are looked for: where it lies and what its file says."""

    @property
    def path(self) -> Path:
        """The file or folder of the checkpoint."""

    @property
    def home(self) -> Model:
        """The checkpoint beside which its classes lie: itself, or the base of an adapter."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the checkpoint's tensors."""

    @property
    def classes(self) -> Mapping[str, Names]:
        """The classes that stand in a file of ``torch.save``, beside its tensors: where → index → name."""


def classes_of(checkpoint: Model, known: dict[object, dict[str, Names]] | None = None) -> dict[str, Names]:
    """The classes that stand beside a checkpoint, or in its file: where → index → name.

    Args:
        checkpoint: file or folder.
        known: what was found before, by folder and by content; filled.
    """
    known = {} if known is None else known
    place = checkpoint.home.path
    folder = place if place.is_dir() else place.parent
    if folder not in known:
        beside: dict[str, Names] = {}
        for file in readable(folder, FILES):
            beside |= _parsed(file, known)
        known[folder] = beside
    inside = dict(checkpoint.classes)
    for file in checkpoint.files[:1]:
        for key, value in _metadata(file).items():
            inside |= {f"metadata: {where}": names for where, names in _in_text(key, value)}
    return known[folder] | inside


def classes_in(content: Any, path: str = "", deep: int = 0) -> Iterator[tuple[str, Names]]:
    """The classes in JSON's values: the keys that lead there, joined by dots, and index → name.

    >>> dict(classes_in({"pretrained_cfg": {"label_names": ["cat", "dog"]}}))
    {'pretrained_cfg.label_names': {'0': 'cat', '1': 'dog'}}
    """
    if isinstance(content, argparse.Namespace | types.SimpleNamespace):
        content = vars(content)
    if not isinstance(content, Mapping) or deep > _DEEP:
        return
    for key, value in content.items():
        where = f"{path}.{key}" if path else str(key)
        named = any(part.lower() in KEYS for part in where.split("."))
        named = named or (key == "names" and isinstance(value, Mapping))  # of YOLO; a list of names may be anything
        names = names_of(value, by_name=key in _BY_NAME) if named else None
        if names is not None:
            yield where, names
        else:
            yield from classes_in(value, where, deep + 1)


def names_of(value: Any, *, by_name: bool = False) -> Names | None:
    """A list of classes, or a mapping in either direction, as index → name; None where it is neither.

    A list in which many names stand twice holds the labels of samples; of ImageNet's classes two are called "crane".

    Args:
        value: a value read from JSON, or a NumPy array of names.
        by_name: whether, in a mapping from numbers to numbers, the second ones are the indices.

    >>> names_of({"cat": 0, "dog": 1}) == names_of(["cat", "dog"]) == names_of({"0": "cat", "1": "dog"})
    True
    """
    if hasattr(value, "tolist") and getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S", "O"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        if value and all(isinstance(each, Mapping) and {"id", "name"} <= set(each) for each in value):  # COCO
            return names_of({each["id"]: each["name"] for each in value})
        distinct = value and all(isinstance(name, str) for name in value) and len(set(value)) > 0.9 * len(value)
        return {str(index): name for index, name in enumerate(value)} if distinct else None
    if not isinstance(value, Mapping) or not value:
        return None
    indexed = all(_is_index(index) for index in value.values())
    if (
        not (by_name and indexed)
        and all(_is_index(key) for key in value)
        and all(isinstance(name, str | int) or _is_pair(name) for name in value.values())
    ):
        return {str(int(index)): str(name[1] if _is_pair(name) else name) for index, name in value.items()}
    if indexed:
        names: dict[str, list[str]] = {}
        for name, index in value.items():
            names.setdefault(str(int(index)), []).append(str(name))
        return {index: " / ".join(sorted(several)) for index, several in names.items()}
    return None


def _is_pair(value: Any) -> bool:
    """WordNet id and name, as Keras lists ImageNet's classes."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _is_index(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\d{1,9}", value) is not None
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= 0


def _parsed(file: Path, known: dict[object, dict[str, Names]]) -> dict[str, Names]:
    """The classes that one file names; equal files are read once."""
    try:
        content = read_companion(file)
    except CheckpointError:  # it was there when it was looked for
        return {}
    if (file.name, content) not in known:
        known[file.name, content] = dict(_in_file(file.name, content))
    return known[file.name, content]


def _in_file(name: str, content: bytes) -> Iterator[tuple[str, Names]]:
    try:
        text = _decoded(content)
        if name.endswith(".txt"):
            data: Any = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            data = json.loads(text)
    except (ValueError, RecursionError):
        return
    names = names_of(data, by_name=name.partition(".")[0] in _BY_NAME) if name != "config.json" else None
    if names is not None:
        yield name, names
    else:
        yield from ((f"{name}: {where}", names) for where, names in classes_in(data))


def _decoded(content: bytes) -> str:
    """Text in the encodings in which lists of classes are written: UTF-8, UTF-16 (PowerShell), Latin-1."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _in_text(key: str, value: str) -> Iterator[tuple[str, Names]]:
    """Classes in a safetensors file's metadata, whose values are text."""
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        data = value.split(",") if key in KEYS and "," in value else None
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            data = ast.literal_eval(value) if value[:1] in "{[" else data  # Ultralytics writes Python's
    yield from classes_in({key: data})


def _metadata(file: Path) -> dict[str, str]:
    """A safetensors file's own words; none of another kind of file."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = opened.read(length) if length <= SMALL else b""
        at = header.find(b'"__metadata__"')
        if at < 0 or not any(key.encode() in header for key in (*KEYS, "names")):
            return {}
        found = json.loads(header)["__metadata__"]
        return {str(key): str(value) for key, value in found.items()}
    except DAMAGED:
        return {}

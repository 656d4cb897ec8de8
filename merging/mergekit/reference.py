"""Models as mergekit's files name them: a folder or an id of the Hub, perhaps a revision, perhaps with an adapter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from merging.errors import CheckpointError, near_path
from merging.mergekit.document import Document, kind
from merging.storage.hub.spelling import PREFIX, as_id


@dataclass(frozen=True)
class Reference:
    """A model of a file.

    Attributes:
        source: the folder or file as an absolute path, or an id of the Hub with its prefix.
        adapter: the same of an adapter on it; empty: it stands alone.
    """

    source: str
    adapter: str = ""

    def __str__(self) -> str:
        return self.source + (f"+{self.adapter}" if self.adapter else "")


def reference(said: Document) -> Reference:
    """Reads a reference; relative paths are relative to the working folder.

    Raises:
        MergingError: it is none, or nothing is there.
    """
    if isinstance(said.value, str):
        if _there(said.value) is not None:
            return Reference(_place(said, said.value))
        parts = said.value.split("+")
        if len(parts) > 2 or not all(parts):
            raise said.wrong(f"is {kind(said.value)}, neither MODEL nor MODEL+ADAPTER")
        return Reference(*(_place(said, part) for part in parts))
    said.mapping("a folder or an id of the Hub").check_keys(
        ("model", "lora"), {"override_architecture": "is not supported: a model is what its files say"}
    )
    if said.get("model") is None:
        raise said.wrong("has no 'model', a folder or an id of the Hub")
    lora = said.get("lora")
    return Reference(_part(said["model"]), "" if lora is None else _part(lora))


def _part(said: Document) -> str:
    """A model or an adapter: a text, or a mapping with ``path`` and ``revision``."""
    if isinstance(said.value, str):
        return _place(said, said.value)
    said.mapping("a folder or an id of the Hub").check_keys(("path", "revision"))
    if (path := said.get("path")) is None:
        raise said.wrong("has no 'path'")
    revision = said.get("revision")
    text, wanted = path.text("a folder or an id of the Hub"), "" if revision is None else revision.text("a revision")
    if wanted and _there(text) is not None:
        raise said["revision"].wrong(f"is for a model of the Hub, and {text} is on this machine")
    return _place(path, text, wanted)


def _place(said: Document, text: str, revision: str = "") -> str:
    """The source of what a text names.

    Raises:
        MergingError: nothing is there, and it is no id of the Hub.
    """
    path = _there(text)
    if path is not None:
        return os.path.abspath(path)
    beside = _there(str(said.file.parent / text))
    if beside is not None and not revision:  # before the Hub is asked, where a stranger may have the name ORG/NAME
        raise said.wrong(
            f"is {kind(text)}, and no such file or folder is there; paths are relative to the working folder, "
            f"and it is {beside}"
        )
    try:
        found = as_id(f"{text}@{revision}" if revision else text)
    except CheckpointError as error:
        raise said.wrong(f"names no model: {error}") from None
    if found is None:
        hint = near_path(text) or f"; for a model of the Hub, write {PREFIX}ORG/NAME"
        raise said.wrong(f"is {kind(text)}, and no such file or folder is there{hint}")
    return str(found)


def _there(text: str) -> Path | None:
    """The file or folder that a text names; None where nothing is there, or no path is spelled like that."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # a name that no system takes, or nobody's home
        return None

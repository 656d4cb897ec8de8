"""What a model was trained with, as far as its file or the files beside it say: hyper-parameters under short names.

Read are the record that ``merge finetune`` writes beside each model, what a training program saved in the checkpoint
(``args`` of timm, ``hyper_parameters`` of Lightning, …), ``args.yaml`` and ``hparams.yaml`` beside it, and what the
Trainer of transformers leaves in a model's folder. They may come from strangers: no code in them is run, and whatever
cannot be read says nothing.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import CheckpointError
from merging.storage.checkpoint import stem
from merging.storage.companions import read_companion, readable
from merging.storage.training_inside import NAMES, SHORT, scalar, shortened

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint
    from merging.values.leaderboard import Trained

_LINE = re.compile(r"([\w.-]+):[ \t]+(\S.*?)[ \t]*")
_LARGEST = 4 << 20
"""Bytes of a file that is read."""


def trained_with(checkpoint: Checkpoint) -> Trained:
    """The hyper-parameters of one model, under short names in the order of :data:`NAMES`; empty where none are known.

    Where several places know one, the record of ``merge finetune`` goes before the file itself, and that before what
    lies beside it.

    Args:
        checkpoint: an opened checkpoint.
    """
    path = checkpoint.path
    own = shortened(_record(path))
    found = {**_beside(path if path.is_dir() else path.parent), **checkpoint.trained, **own}
    return {name: found[name] for name in NAMES if name in found}


def _record(path: Path) -> Mapping[str, Any]:
    """What ``merge finetune`` keeps beside a model, a file or an adapter's folder: ``settings`` in a JSON file."""
    record = _json(path.parent, f"{path.name if path.is_dir() else stem(path)}.json")
    settings = record.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _beside(folder: Path) -> dict[str, str | float | int | bool]:
    """What the files of a folder say of all models in it."""
    found: dict[str, Any] = {}
    for place in (folder, *([folder.parent] if folder.name == "checkpoints" else [])):  # Lightning's
        for name in ("args.yaml", "hparams.yaml"):
            lines = _read(place, name).decode("utf-8", "replace").splitlines()
            told = (match.groups() for line in lines if (match := _LINE.fullmatch(line)))
            found = {key: scalar(value) for key, value in told} | found
    state = _json(folder, "trainer_state.json")
    return shortened(
        {key: value for key, value in state.items() if key != "max_steps"} | dict(_arguments(folder)) | found
    )


def _arguments(folder: Path) -> Iterator[tuple[str, Any]]:
    """The plain values in a Trainer's ``training_args.bin``: a pickle, whose instructions are read and not followed."""
    content = _read(folder, "training_args.bin")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            if entry.file_size > _LARGEST:
                return
            operations = list(pickletools.genops(archive.read(entry)))
    except Exception:  # zipfile and pickletools raise whatever damaged bytes provoke
        return
    name = ""
    for operation, argument, _ in operations:
        if "PUT" in operation.name or operation.name == "MEMOIZE":
            continue
        value = {"NEWTRUE": True, "NEWFALSE": False}.get(operation.name, argument)
        if name in SHORT and operation.name not in ("GLOBAL", "BINGET", "LONG_BINGET", "GET", "MARK"):
            yield name, value
        name = str(argument) if "UNICODE" in operation.name and name not in SHORT else ""


def _read(folder: Path, name: str) -> bytes:
    """The content of a small regular file that does not lead out of its folder; nothing where there is none."""
    try:
        content = read_companion(*readable(folder, (name,)))
    except (TypeError, CheckpointError, OSError):  # there is none, or it went away
        return b""
    return content if len(content) <= _LARGEST else b""


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads(_read(folder, name).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}

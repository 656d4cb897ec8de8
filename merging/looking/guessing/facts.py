"""What files say of a model: in a checkpoint beside its tensors, beside the checkpoint, in a pool's record."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, MergingError
from merging.storage.checkpoint import Checkpoint
from merging.storage.file_kind import format_of
from merging.storage.model_folder import is_transformers
from merging.storage.unpickling import load

_NAMES = ("arch", "model", "model_name", "architecture", "backbone", "encoder", "model_arch", "network", "net")
"""Names of settings that say which architecture it is, the surest first."""
_SETTINGS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt", "params")
"""Keys under which training programs keep their settings in a checkpoint."""
_FILES = ("args.yaml", "hparams.yaml", "config.yaml", "args.json", "hparams.json", "config.json")
"""Files beside a checkpoint that may hold settings of its training, or of the model."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One architecture, as a file says it.

    Attributes:
        name: name of the model, perhaps with its library: ``resnet18``, ``transformers:FOLDER``.
        where: says where it stands.
        arguments: arguments of the constructor.
        settings: what else is said there: ``mean``, ``std``, ``img_size``, ``interpolation``, ``crop_pct``.
    """

    name: str
    where: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def said_of(checkpoint: Checkpoint) -> Iterator[Said]:
    """All that is said of a checkpoint's architecture, the surest first; nothing of it is proven."""
    place = checkpoint.home.path
    folder = place if place.is_dir() else place.parent
    if is_transformers(folder / "config.json"):
        yield Said(name=f"transformers:{folder}", where=str(folder / "config.json"))
    yield from _inside(checkpoint)
    for name in _FILES:
        for place in (folder, folder.parent):
            content = _read(place / name)
            if isinstance(content, Mapping):
                yield from _named(content, str(place / name))
    record = _read(folder / "finetune.json")
    if isinstance(record, Mapping):
        task = record.get("task")
        built = task.get("model") if isinstance(task, Mapping) else task
        if isinstance(built, str):
            yield Said(name=built, where=str(folder / "finetune.json"))


def _inside(checkpoint: Checkpoint) -> Iterator[Said]:
    """What a file of ``torch.save`` holds beside the tensors; no code of it is run."""
    with contextlib.suppress(MergingError):
        if not checkpoint.path.is_file() or format_of(checkpoint.path).safe:
            return
        content = _plain(load(checkpoint.path))
        if not isinstance(content, Mapping):
            return
        for key in _SETTINGS:
            settings = _plain(content.get(key))
            if isinstance(settings, Mapping):
                yield from _named(settings, f"{key} in {checkpoint.path.name}", timm="arch" in content)
        yield from _named({k: v for k, v in content.items() if isinstance(v, str)}, checkpoint.path.name)


def _named(settings: Mapping[str, Any], where: str, *, timm: bool = False) -> Iterator[Said]:
    """The names of architectures among settings, with what these say of pixels and arguments.

    Args:
        settings: what a file holds.
        where: it stands, for messages.
        timm: whether timm's own saver wrote the file.
    """
    flat = {str(key): _plain(value) for key, value in settings.items()}
    for key in ("pretrained_cfg", "model", "model_config"):  # timm's config.json; nested configurations
        if isinstance(flat.get(key), Mapping):
            inner = {str(name): _plain(value) for name, value in flat[key].items()}
            flat = {**inner, **flat, **({"model": inner["name"]} if "name" in inner and key == "model" else {})}
    arguments = dict(flat.get("model_kwargs") or flat.get("model_args") or {})
    if flat.get("gp"):  # timm's train.py
        arguments["global_pool"] = flat["gp"]
    timm = timm or "pretrained_cfg" in settings or {"crop_pct", "interpolation"} <= set(flat)  # config.json, args.yaml
    for key in _NAMES:
        name = flat.get(key)
        if isinstance(name, str) and re.fullmatch(r"[\w./:-]+", name):
            full = f"timm:{name.rpartition('/')[2]}" if timm and ":" not in name else name
            yield Said(name=full, where=f"{key} = {name} in {where}", arguments=arguments, settings=_pixels(flat))


def _pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What settings say of how pictures are prepared."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = settings.get(key)
        numbers = [float(each) for each in value] if isinstance(value, list | tuple) and _are_numbers(value) else []
        if len(numbers) == 3:
            found[key] = numbers
    size = settings.get("img_size") or settings.get("input_size") or settings.get("image_size")
    if isinstance(size, list | tuple) and size and _are_numbers(size):
        size = size[-1]
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        found["size"] = size
    return found


def _are_numbers(values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _plain(value: Any) -> Any:
    """The attributes of a namespace as a mapping; anything else as it is."""
    return vars(value) if isinstance(value, argparse.Namespace | types.SimpleNamespace) else value


def _read(file: Path) -> Any:
    """What a small JSON or YAML file holds; None where it is not there or holds something else."""
    try:
        if not file.is_file() or file.stat().st_size > 1 << 20:
            return None
        if file.suffix == ".json":
            return json.loads(file.read_bytes())
        import yaml

        return yaml.safe_load(file.read_text("utf-8", "replace"))
    except (*DAMAGED, ImportError):
        return None
    except Exception:  # YAML's own errors derive from Exception alone
        return None

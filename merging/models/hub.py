"""An architecture by an id of the Hub: the small files are fetched, the weights are a pool's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, MergingError, TaskError, raised
from merging.storage.hub.fetching import folders, id_of
from merging.storage.hub.spelling import PREFIX, as_id

CONFIG = "config.json"


def beside_weights(place: str) -> tuple[Path, str]:
    """The folder with a model's configuration, and the name that stands for it: of the Hub, with the commit.

    Args:
        place: a folder, or an id of the Hub.

    Raises:
        TaskError: it is an id, and the files cannot be had.
    """
    try:
        found = as_id(place)
        if found is None:
            return Path(place).expanduser(), place
        (folder,) = folders([found], weights=False)
    except MergingError as error:
        raise TaskError(str(error)) from None
    return folder, str(id_of(folder))


def sourced(spec: str) -> str:
    """Finds the source of a model that is named by its id alone: ``hf-hub:org/name`` → ``transformers:hf-hub:…``.

    Raises:
        TaskError: the files cannot be had, or are of no source that is known.
    """
    place, bracket, arguments = spec.partition("(")
    folder, pinned = beside_weights(place)
    config = _config(folder, spec)
    if "model_type" in config:
        return f"transformers:{pinned}{bracket}{arguments}"
    if "architecture" in config:
        return f"timm:{pinned}{bracket}{arguments}"
    raise TaskError(
        f"{spec}: its {CONFIG} is neither of transformers nor of timm; name the architecture with its source, such as "
        "open_clip:ViT-B-32, and the weights with `models`"
    )


def _config(folder: Path, spec: str) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises:
        TaskError: there is none, or it is damaged.
    """
    try:
        said = json.loads((folder / CONFIG).read_bytes())
        return dict(said)
    except FileNotFoundError:
        raise TaskError(f"{spec}: has no {CONFIG}, which says the architecture; name that with its source") from None
    except DAMAGED as error:
        raise TaskError(f"{spec}: {CONFIG} is damaged ({raised(error, whole=True)})") from None


def is_of_hub(spec: str) -> bool:
    """Whether a model is named by an id of the Hub alone, without a source."""
    return spec.startswith(PREFIX) or (":" not in spec.partition("(")[0] and as_id(spec.partition("(")[0]) is not None)


def timm_config(place: str, spec: str) -> tuple[str, str, dict[str, Any]]:
    """Reads what timm saved of a model on the Hub: its pinned id, its architecture, and how it was trained.

    Raises:
        TaskError: the files cannot be had, or timm did not write them.
    """
    folder, pinned = beside_weights(place)
    config = _config(folder, spec)
    if not isinstance(config.get("architecture"), str):
        raise TaskError(f"{spec}: its {CONFIG} names no architecture of timm")
    return pinned, config["architecture"], config

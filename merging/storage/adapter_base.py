"""The base of an adapter: where its configuration says that it lies, and whether another one may be it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import CheckpointError, showable
from merging.storage.adapter_folder import AdapterConfig

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

_GIVE = "give the model that it was trained on with `base`"


def recorded_base(config: AdapterConfig) -> Path:
    """Finds the model that an adapter says it was trained on.

    A relative path is taken from here, as PEFT does, and then from beside the adapter.

    Raises:
        CheckpointError: it says none, or one that is not on this machine; nothing is fetched.
    """
    if not config.base:
        raise CheckpointError(f"{config.folder}: is an adapter that does not say of which model; {_GIVE}")
    found = _places(config)
    if not found:
        raise CheckpointError(
            f"{config.folder}: is an adapter of '{showable(config.base)}', which is no file or folder here; {_GIVE}"
        )
    return found[0]


def check_recorded(config: AdapterConfig, base: Checkpoint) -> None:
    """Refuses a base where an adapter names another model that is there, and whose content is another.

    Raises:
        CheckpointError: names both.
    """
    from merging.storage.checkpoint import Checkpoint

    places = _places(config)
    if not places or base.in_memory or any(os.path.samefile(place, base.path) for place in places):
        return
    try:
        other = Checkpoint(places[0])
        same = other.tensors == base.tensors and other.hash == base.hash
    except CheckpointError:  # it is no model, so nobody knows which one it was
        return
    if not same:
        raise CheckpointError(
            f"{config.folder}: was trained on {showable(places[0])}, and {base.path} is another model; {_GIVE}"
        )


def _places(config: AdapterConfig) -> list[Path]:
    """Where the recorded base may lie, as far as it does."""
    said = Path(config.base).expanduser()
    candidates = [said] if said.is_absolute() else [said, config.folder.parent / said]
    return [place for place in candidates if config.base and place.exists() and not place.is_relative_to(config.folder)]

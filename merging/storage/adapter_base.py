"""The base of an adapter: where its configuration says that it lies, and whether another one may be it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import CheckpointError, showable
from merging.storage.adapter_folder import AdapterConfig, adapter_folder
from merging.storage.hub.fetching import folder_of
from merging.storage.hub.spelling import written

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

_GIVE = "give the model that it was trained on with `base`"


_standing: ContextVar[str | None] = ContextVar("base of adapters", default=None)


@contextmanager
def standing_on(base: str | None) -> Iterator[None]:
    """Has adapters stand on a model (a path, or an id of the Hub) for a while, where theirs is not on this machine."""
    token = _standing.set(base)
    try:
        yield
    finally:
        _standing.reset(token)


def recorded_base(config: AdapterConfig) -> Path:
    """Finds the model that an adapter says it was trained on.

    A relative path is taken from here, as PEFT does, and then from beside the adapter.

    Raises:
        CheckpointError: it says none, or one that is not on this machine; nothing is fetched.
    """
    found = places(config)
    otherwise = _standing.get()
    if not found and otherwise is not None:
        return folder_of(otherwise) or Path(otherwise).expanduser()
    if not config.base:
        raise CheckpointError(f"{config.folder}: is an adapter that does not say of which model; {_GIVE}")
    if not found:
        raise CheckpointError(
            f"{config.folder}: is an adapter of '{showable(config.base)}', which is no file or folder here; {_GIVE}"
            + written(config.base)
        )
    if adapter_folder(found[0]) is not None:  # which could lead in a circle
        raise CheckpointError(f"{config.folder}: is an adapter of {showable(found[0])}, an adapter itself; {_GIVE}")
    return found[0]


def check_recorded(config: AdapterConfig, base: Checkpoint) -> None:
    """Refuses a base where an adapter names another model that is there, and whose content is another.

    Raises:
        CheckpointError: names both.
    """
    from merging.storage.checkpoint import Checkpoint

    known = places(config)
    if not known or base.in_memory or any(os.path.samefile(place, base.path) for place in known):
        return
    try:
        other = Checkpoint(known[0])
        same = other.tensors == base.tensors and other.hash == base.hash
    except CheckpointError:  # it is no model, so nobody knows which one it was
        return
    if not same:
        raise CheckpointError(
            f"{config.folder}: was trained on {showable(known[0])}, and {base.path} is another model; {_GIVE}"
        )


def places(config: AdapterConfig) -> list[Path]:
    """Finds where on this machine the model lies that an adapter names; none where it does not."""
    said = Path(config.base).expanduser()
    candidates = [said] if said.is_absolute() else [said, config.folder.parent / said]
    return [place for place in candidates if config.base and place.exists() and not place.is_relative_to(config.folder)]

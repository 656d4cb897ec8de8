"""Weights that open_clip publishes, by model and tag: the repository of the Hub that holds them, and the file."""

from __future__ import annotations

from typing import Any

from merging.errors import CheckpointError, unknown
from merging.storage.hub.spelling import OPEN_CLIP


def published(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Repository, revision (none) and file of ``open_clip:NAME/TAG``, by the names that open_clip itself looks for.

    Raises:
        CheckpointError: open_clip has no such model or tag, or it is not on the Hub.
    """
    import open_clip
    from open_clip import constants

    library: Any = open_clip
    name, _, tag = text.removeprefix(OPEN_CLIP).rpartition("/")
    tags: list[str] = library.list_pretrained_tags_by_model(name)
    if not tags:
        known = [each for each, _ in library.list_pretrained()]
        raise unknown("model of open_clip with published weights", name, known, error=CheckpointError)
    if tag not in tags:
        raise unknown(f"tag of {OPEN_CLIP}{name}:", tag, tags, error=CheckpointError)
    place = str(library.get_pretrained_cfg(name, tag).get("hf_hub") or "")
    repository, _, file = place.rpartition("/")
    if not repository:
        raise CheckpointError(
            f"{text}: open_clip has these weights elsewhere than on the Hub; download them, and name the file"
        )
    usual = (constants.HF_SAFE_WEIGHTS_NAME, constants.HF_WEIGHTS_NAME)
    return repository, "", usual if not file else (f"{file.rpartition('.')[0]}.safetensors", file)

"""The Hub's own cache on this disk: where a commit lies, what it has without the network, and whether there is room."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from merging.errors import CheckpointError
from merging.storage import atomic
from merging.storage.hub.listing import Listing
from merging.storage.hub.spelling import HubId

MAIN = "main"
"""The branch that is meant where none is named."""


def place_of(pinned: HubId) -> Path:
    """The folder of a commit in the cache, whether it is there or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=pinned.repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / pinned.revision


def cached(asked: HubId, why: str, *, weights: bool) -> tuple[HubId, Path]:
    """Finds a model in the cache, without the network.

    Args:
        asked: what was asked for; a branch or tag is what it was when it was asked last.
        why: the reason why the Hub is not asked, for messages.
        weights: whether the tensors are wanted.

    Raises:
        CheckpointError: it has nothing, or not all.
    """
    from huggingface_hub import constants

    commit = asked.revision
    if not asked.pinned:
        ref = _ref(asked)
        commit = ref.read_text("utf-8").strip() if ref is not None and ref.is_file() else ""
    pinned = HubId(asked.repository, commit)
    folder = place_of(pinned)
    if not pinned.pinned or not folder.is_dir():
        raise CheckpointError(f"{asked}: it is not in the cache ({constants.HF_HUB_CACHE}), and {why}")
    sizes = {entry.name: entry.stat().st_size for entry in folder.iterdir() if entry.is_file()}
    if weights:
        try:
            Listing(asked, pinned, sizes).weights(lambda name: folder / name)
        except CheckpointError as error:
            raise CheckpointError(f"{error}: the cache has a part of it alone, and {why}") from None
    return HubId(pinned.repository, commit, tuple(name for name in asked.files if name in sizes)[:1]), folder


def keep(listing: Listing) -> None:
    """Notes in the cache which commit a branch or tag is, as huggingface_hub does: offline, it is that one."""
    ref = _ref(HubId(listing.pinned.repository, listing.asked.revision))
    if ref is None or listing.asked.pinned or not place_of(listing.pinned).is_dir():
        return
    with contextlib.suppress(OSError):  # a cache that several people share may not be ours to write
        if not ref.is_file() or ref.read_text("utf-8") != listing.pinned.revision:
            atomic.make_folder(ref.parent)
            atomic.write(ref, listing.pinned.revision)


def _ref(asked: HubId) -> Path | None:
    """The file that says which commit a branch or tag is; None for a name that leads elsewhere."""
    name = asked.revision or MAIN
    return (
        None
        if {"", ".", ".."} & set(name.split("/"))
        else place_of(HubId(asked.repository, MAIN)).parents[1] / "refs" / name
    )


def check_room(wanted: Sequence[tuple[Listing, list[str]]], endpoint: str) -> None:
    """Refuses, before anything large is fetched, what the disk has no room for.

    Args:
        wanted: what each repository holds, and which of its files are wanted.
        endpoint: address of the Hub, for messages.

    Raises:
        CheckpointError: it has not.
    """
    from huggingface_hub import constants

    size = sum(listing.sizes[name] or 0 for listing, names in wanted for name in missing_of(listing, names))
    cache = Path(constants.HF_HUB_CACHE)
    there = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise CheckpointError(
            f"{shown(size)} are to be fetched from {endpoint}, and {cache} has room for {shown(free)}; free some, or "
            "set HF_HOME to another disk"
        )


def missing_of(listing: Listing, names: Sequence[str]) -> list[str]:
    """Lists the wanted files of a repository that the cache does not have."""
    folder = place_of(listing.pinned)
    return [name for name in names if not (folder / name).exists()]


def shown(size: float) -> str:
    """Bytes for people, as the Hub counts them.

    >>> shown(1_230_000_000), shown(4_500)
    ('1.2 GB', '4.5 kB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"

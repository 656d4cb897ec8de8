"""From ids of the Hub to folders in its cache: all are looked at first, and then fetched, file by file."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from merging.errors import CheckpointError
from merging.storage import atomic
from merging.storage.hub.listing import Listing
from merging.storage.hub.news import News, say, who_is_told
from merging.storage.hub.refusals import passes, reason, refusal
from merging.storage.hub.spelling import PREFIX, HubId, as_id
from merging.values.wording import plural

MB = 1_000_000
ATTEMPTS = 3
"""Times that a file is asked for where the connection breaks off; huggingface_hub asks some times of its own, too."""


_folders: dict[tuple[HubId, bool], Path] = {}
"""What was asked for in this process, with weights or without → its folder: one question and one answer each."""
_pinned: dict[Path, HubId] = {}
"""Folder → what it is."""


def folders(ids: Sequence[HubId], *, weights: bool = True) -> list[Path]:
    """The folders of some models in the Hub's cache, fetched as far as they are not there.

    Args:
        ids: what was asked for.
        weights: whether the tensors are wanted; else the small files alone.

    Raises:
        CheckpointError: one cannot be had; nothing large was fetched then, of any of them, unless the network failed.
    """
    new = [each for each in dict.fromkeys(ids) if (each, weights) not in _folders]
    if new:
        for asked, (pinned, folder) in zip(new, _fetched(new, weights=weights), strict=True):
            _folders[asked, weights] = _folders[pinned, weights] = folder
            _pinned[folder] = pinned
    return [_folders[each, weights] for each in ids]


def folder_of(text: str) -> Path | None:
    """The folder of the model that a text is an id of, fetched; None where the text is a path.

    Raises:
        CheckpointError: it is an id, and the model cannot be had.
    """
    found = as_id(text)
    return None if found is None else folders([found])[0]


def id_of(path: Path) -> HubId | None:
    """Repository and commit of a folder that was fetched by its id in this process; None for all others."""
    return _pinned.get(path)


def _fetched(ids: Sequence[HubId], *, weights: bool) -> list[tuple[HubId, Path]]:
    from huggingface_hub import HfApi, constants

    api = HfApi(library_name="merging")
    if constants.HF_HUB_OFFLINE:
        return [_cached(each, "nothing is fetched offline (HF_HUB_OFFLINE)") for each in ids]
    found, wanted = list[tuple[HubId, Path]](), list[tuple[Listing, list[str]]]()
    for each in ids:
        try:
            listing = _listed(each, api)
        except ConnectionError as error:
            found.append(_cached(each, str(error)))
            say(f"{error}: {each.short} is taken from the cache, as it was fetched before")
            continue
        names = listing.beside()  # first, so that a folder with weights has them
        if weights:
            names += [name for name in listing.weights(functools.partial(_file, listing)) if name not in names]
        wanted.append((listing, names))
        found.append((listing.pinned, _place(listing.pinned)))
    _check_room(wanted, api.endpoint)
    for listing, names in wanted:
        _fetch(listing, names, api.endpoint)
        _keep(listing)
    return found


def _listed(asked: HubId, api: Any) -> Listing:
    """Asks the Hub what a repository holds.

    Raises:
        CheckpointError: it does not say.
        ConnectionError: it cannot be reached.
    """
    try:
        info = api.model_info(asked.repository, revision=asked.revision or None, files_metadata=True)
        if info.gated:
            api.auth_check(info.id)
    except Exception as error:  # of the Hub's own, and whatever its HTTP library raises
        if passes(error):
            raise ConnectionError(reason(error, api.endpoint)) from None
        raise refusal(error, asked, api) from None
    sizes = {file.rfilename: file.size for file in info.siblings or () if "/" not in file.rfilename}
    moved = as_id(f"{PREFIX}{info.id}") if info.id else None  # a model that has another name now
    pinned = HubId(asked.repository if moved is None else moved.repository, info.sha or "")
    if not pinned.pinned:
        raise CheckpointError(f"{asked}: {api.endpoint} does not say which commit it is; write a commit behind @")
    return Listing(asked, pinned, sizes)


def _place(pinned: HubId) -> Path:
    """The folder of a commit in the cache, whether it is there or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=pinned.repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / pinned.revision


def _cached(asked: HubId, why: str) -> tuple[HubId, Path]:
    """What the cache has of a model, without the network.

    Raises:
        CheckpointError: nothing.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        folder = Path(snapshot_download(asked.repository, revision=asked.revision or None, local_files_only=True))
    except Exception:  # which kind depends on what is missing
        cache = constants.HF_HUB_CACHE
        raise CheckpointError(f"{asked}: it is not in the cache ({cache}), and {why}") from None
    return HubId(asked.repository, folder.name), folder


def _keep(listing: Listing) -> None:
    """Notes in the cache which commit a branch or tag is, as huggingface_hub does: offline, it is that one."""
    name, folder = listing.asked.revision or "main", _place(listing.pinned)
    if listing.asked.pinned or not folder.is_dir() or {"", ".", ".."} & set(name.split("/")):
        return
    ref = folder.parents[1] / "refs" / name
    with contextlib.suppress(OSError):  # a cache that several people share may not be ours to write
        if not ref.is_file() or ref.read_text("utf-8") != listing.pinned.revision:
            atomic.make_folder(ref.parent)
            atomic.write(ref, listing.pinned.revision)


def _check_room(wanted: Sequence[tuple[Listing, list[str]]], endpoint: str) -> None:
    """Refuses, before anything large is fetched, what the disk has no room for.

    Raises:
        CheckpointError: it has not.
    """
    from huggingface_hub import constants

    missing = sum(listing.sizes[name] or 0 for listing, names in wanted for name in _missing(listing, names))
    cache = Path(constants.HF_HUB_CACHE)
    there = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if missing > free:
        raise CheckpointError(
            f"{shown(missing)} are to be fetched from {endpoint}, and {cache} has room for {shown(free)}; free "
            "some, or set HF_HOME to another disk"
        )


def _missing(listing: Listing, names: Sequence[str]) -> list[str]:
    folder = _place(listing.pinned)
    return [name for name in names if not (folder / name).exists()]


def _fetch(listing: Listing, names: Sequence[str], endpoint: str) -> None:
    """Fetches the files of one model that are not in the cache, and says so."""
    missing = _missing(listing, names)
    if not missing:
        return
    size = sum(listing.sizes[name] or 0 for name in missing)
    news = who_is_told()
    what = f"fetching {listing.pinned.short} from {endpoint}: {plural(len(missing), 'file')}, {shown(size)}"
    if news is not None:
        news.say(what)
        tell = getattr(news, "unit", None)
        if tell is not None:
            tell("MB")
        news.stage(what, max(round(size / MB), 1))
    for name in missing:
        _file(listing, name)


def _file(listing: Listing, name: str) -> Path:
    """Fetches one file, or finds it in the cache.

    Raises:
        CheckpointError: it does not come.
    """
    from huggingface_hub import HfApi, hf_hub_download

    news, more = who_is_told(), dict[str, Any]()
    if news is not None and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        more["tqdm_class"] = _bar(news)
    name_of, commit = listing.pinned.repository, listing.pinned.revision
    for left in reversed(range(ATTEMPTS)):
        try:
            with _quiet():
                return Path(hf_hub_download(name_of, name, revision=commit, library_name="merging", **more))
        except Exception as error:  # of the Hub's own, of its HTTP library, or of the disk
            if left and passes(error):
                say(f"{name} of {listing.pinned.short}: the connection broke off; going on")
                continue
            said = refusal(error, listing.asked, HfApi())
            raise CheckpointError(f"{said} (at {name}; the same command fetches what is missing)") from None
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps huggingface_hub from telling the addresses that it goes on at, which are signed."""
    from huggingface_hub.utils import logging as of_hub

    before = of_hub.get_verbosity()
    of_hub.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        of_hub.set_verbosity(before)


def _bar(news: News) -> type[Any]:
    """A bar for huggingface_hub that shows nothing and tells the news of whole megabytes."""
    from tqdm import tqdm

    class Told(tqdm):  # type: ignore[misc]
        def __init__(self, *values: Any, **settings: Any) -> None:
            settings.pop("name", None)
            super().__init__(*values, **(settings | {"disable": True}))
            self._left = 0.0

        def update(self, n: float | None = 1) -> None:
            self._left += n or 0
            whole = int(self._left // MB)
            if whole:
                self._left -= whole * MB
                news.advance(whole)

    return Told


def shown(size: float) -> str:
    """Bytes for people, as the Hub counts them.

    >>> shown(1_230_000_000), shown(4_500)
    ('1.2 GB', '4.5 kB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"

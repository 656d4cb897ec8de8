"""From ids of the Hub to folders in its cache: all are looked at first, and then fetched, file by file."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from merging.errors import CheckpointError, showable
from merging.storage.hub.cached import cached, check_room, keep, missing_of, place_of, shown
from merging.storage.hub.listing import Listing
from merging.storage.hub.news import News, say, who_is_told
from merging.storage.hub.refusals import address, passes, reason, refusal
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
    """The folders of some models in the Hub's cache, or the files that ids name, fetched as far as they are not there.

    Args:
        ids: what was asked for.
        weights: whether the tensors are wanted; else the small files alone.

    Raises:
        CheckpointError: one cannot be had; nothing large was fetched then, of any of them, unless the network failed.
    """
    new = [each for each in dict.fromkeys(ids) if (each, weights) not in _folders]
    if new:
        for asked, (pinned, folder) in zip(new, _fetched(new, weights=weights), strict=True):
            place = folder / pinned.files[0] if weights and pinned.files else folder
            _folders[asked, weights] = _folders[pinned, weights] = place
            _pinned[place] = pinned
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


def commit_of(asked: HubId) -> HubId:
    """Repository and commit that an id is now; nothing is fetched.

    Raises:
        CheckpointError: there is no such model or revision, or nobody can be asked.
    """
    from huggingface_hub import HfApi, constants

    if asked.pinned:
        return asked
    if not constants.HF_HUB_OFFLINE:
        try:
            return listed(asked, HfApi(library_name="merging")).pinned
        except ConnectionError as error:
            return cached(asked, str(error), weights=False)[0]
    return cached(asked, "nothing is asked offline (HF_HUB_OFFLINE)", weights=False)[0]


def _fetched(ids: Sequence[HubId], *, weights: bool) -> list[tuple[HubId, Path]]:
    from huggingface_hub import HfApi, constants

    api = HfApi(library_name="merging")
    if constants.HF_HUB_OFFLINE:
        return [cached(each, "nothing is fetched offline (HF_HUB_OFFLINE)", weights=weights) for each in ids]
    found, wanted = list[tuple[HubId, Path]](), list[tuple[Listing, list[str]]]()
    for each in ids:
        try:
            listing = listed(each, api)
        except ConnectionError as error:
            found.append(cached(each, str(error), weights=weights))
            say(f"{error}: {each.short} is taken from the cache, as it was fetched before")
            continue
        names = listing.beside()  # first, so that a folder with weights has them
        if weights:
            names += [name for name in listing.weights(functools.partial(fetch_file, listing)) if name not in names]
        wanted.append((listing, names))
        found.append((listing.pinned, place_of(listing.pinned)))
    check_room(wanted, address(api))
    for listing, names in wanted:
        _fetch(listing, names, address(api))
        keep(listing)
    return found


def listed(asked: HubId, api: Any) -> Listing:
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
            raise ConnectionError(reason(error, address(api))) from None
        raise refusal(error, asked, api) from None
    sizes = {file.rfilename: file.size for file in info.siblings or () if "/" not in file.rfilename}
    moved = as_id(f"{PREFIX}{info.id}") if info.id else None  # a model that has another name now
    there = tuple(name for name in asked.files if name in sizes)[:1]
    pinned = HubId(asked.repository if moved is None else moved.repository, info.sha or "", there)
    if not pinned.pinned:
        raise CheckpointError(f"{asked}: {address(api)} does not say which commit it is; write a commit behind @")
    return Listing(asked, pinned, sizes)


def _fetch(listing: Listing, names: Sequence[str], endpoint: str) -> None:
    """Fetches the files of one model that are not in the cache, and says so."""
    missing = missing_of(listing, names)
    if not missing:
        return
    size = sum(listing.sizes[name] or 0 for name in missing)
    news = who_is_told()
    what = f"fetching {listing.pinned.short} from {endpoint}: {plural(len(missing), 'file')}, {shown(size)}"
    if news is not None:
        news.say(showable(what))
        tell = getattr(news, "unit", None)
        if tell is not None:
            tell("MB")
        news.stage(showable(what), max(round(size / MB), 1))
    for name in missing:
        fetch_file(listing, name)


def fetch_file(listing: Listing, name: str) -> Path:
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

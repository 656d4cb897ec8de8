"""What naming ids of the Hub would fetch, and what its tensors are: by listings and headers, before anything large."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merging.storage.dtypes import SAFETENSORS
from merging.storage.hub.cached import missing_of, shown
from merging.storage.hub.fetching import fetch_file, listed
from merging.storage.hub.listing import ADAPTER
from merging.storage.hub.refusals import passes, refusal
from merging.storage.hub.spelling import HubId
from merging.storage.model_folder import SMALL
from merging.values.partition import TensorInfo
from merging.values.wording import plural


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """A model of the Hub that is not on this machine.

    Attributes:
        asked: the id that was written.
        pinned: repository and commit.
        size: bytes that would be fetched.
        tensors: name → shape and dtype, by the headers of its files; None where these are no safetensors, or those of
            an adapter.
    """

    asked: HubId
    pinned: HubId
    size: int
    tensors: Mapping[str, TensorInfo] | None

    @property
    def path(self) -> str:
        """The id as people are shown it."""
        return self.pinned.short


def ahead(ids: Sequence[HubId]) -> list[Ahead]:
    """The models whose weights are large and are not in the cache: looked at, and not fetched.

    Args:
        ids: what was asked for, each once.

    Returns:
        Those of them; all others cost little, or nothing, to fetch.

    Raises:
        CheckpointError: one cannot be had.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:  # what the cache lacks is said where it is opened
        return []
    api, found = HfApi(library_name="merging"), list[Ahead]()
    for asked in dict.fromkeys(ids):
        try:
            listing = listed(asked, api)
        except ConnectionError:  # likewise
            continue
        names = listing.weights(functools.partial(fetch_file, listing))
        size = sum(listing.sizes[name] or 0 for name in missing_of(listing, names))
        if size > SMALL:
            found.append(Ahead(asked=asked, pinned=listing.pinned, size=size, tensors=_tensors(listing.pinned, names)))
    return found


def said(models: Sequence[Ahead]) -> str:
    """Says how much would be fetched, and of what."""
    each = ", ".join(f"{model.path} {shown(model.size)}" for model in models[:4])
    more = f" and {len(models) - 4} more" if len(models) > 4 else ""
    size = shown(sum(model.size for model in models))
    return f"{size} of {plural(len(models), 'model')} are not on this machine yet ({each}{more})"


def _tensors(pinned: HubId, names: Sequence[str]) -> dict[str, TensorInfo] | None:
    """The tensors in the headers of some files, which are fetched by range.

    Raises:
        CheckpointError: the Hub refuses them.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import SafetensorsParsingError

    files = [name for name in names if name.endswith(".safetensors")]
    if ADAPTER in names or len(files) < sum(not name.endswith(".json") for name in names):
        return None
    api, found = HfApi(library_name="merging"), dict[str, TensorInfo]()
    for name in files:
        try:
            header: Any = api.parse_safetensors_file_metadata(pinned.repository, name, revision=pinned.revision)
        except SafetensorsParsingError:  # said in full where the file is opened
            return None
        except Exception as error:  # of the Hub's own, or of its HTTP library
            if passes(error):
                return None
            raise refusal(error, pinned, api) from None
        found |= {key: (tuple(own.shape), SAFETENSORS.get(own.dtype, own.dtype)) for key, own in header.tensors.items()}
    return found

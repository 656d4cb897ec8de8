"""What lies beside a model that was put together in one vocabulary: its tokenizer, and a configuration that fits."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from merging.errors import DAMAGED
from merging.storage.alignment import Alignment
from merging.storage.companions import read_companion
from merging.storage.token_maps import SETTINGS, TOKENIZER
from merging.storage.vocabulary_rows import SIZE, holder

_CONFIGS = ("config.json", "generation_config.json")
_LISTS = ("suppress_tokens", "begin_suppress_tokens")
"""Keys, besides those that end in ``token_id``, that hold ids of tokens."""


def files_of(alignment: Alignment) -> dict[str, bytes]:
    """Name → content of the files that the vocabulary decides.

    Of a tokenizer that is a model's own these are its files as they are; of a union ``tokenizer.json``, and the first
    one's settings and templates. ``config.json`` has the number of rows; in it and in ``generation_config.json``, ids
    are those of the same tokens now.
    """
    whole = ("tokenizer_", "special_", "chat_")  # the others hold a vocabulary, which is no longer the model's
    kept = {n: f for n, f in alignment.owner.files.items() if not alignment.made or n.startswith(whole)}
    found = {name: read_companion(file) for name, file in kept.items()}
    if alignment.made:
        found[TOKENIZER] = alignment.made
        if SETTINGS in found:
            found[SETTINGS] = _with_added(found[SETTINGS], alignment.made)
    moved = _Ids(alignment)
    for file in alignment.home.extras:
        if file.name in _CONFIGS and (said := _object(read_companion(file))) is not None:
            content = moved.within(said)
            if file.name == _CONFIGS[0]:
                part = holder(content)
                (content if part is None else part)[SIZE] = alignment.rows
            found[file.name] = _text(content)
    return found


class _Ids:
    """Ids of tokens in a configuration, from those of its own tokenizer to the result's."""

    def __init__(self, alignment: Alignment) -> None:
        self._ids = alignment.ids
        self._tokens = {number: token for token, number in alignment.maps[alignment.home].ids.items()}
        self._owner = alignment.leader

    @functools.cached_property
    def _owners(self) -> list[dict[str, Any]]:
        """The configurations of the model whose vocabulary it is."""
        found = (_object(read_companion(file)) for file in self._owner.extras if file.name in _CONFIGS)
        return [said for said in found if said is not None]

    def within(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The same configuration with the result's ids; one of a token that the result lacks is the owner's own."""
        return {key: self._value(key, value) for key, value in said.items()}

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.within(value)
        if not (key.endswith(("token_id", "token_ids", "token_index")) or key in _LISTS):
            return value
        if isinstance(value, list):
            return [new for each in value if (new := self._id(key, each)) is not None]
        return self._id(key, value)

    def _id(self, key: str, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return value
        new = self._ids.get(self._tokens.get(value, ""))
        if new is not None:
            return new
        said = next((owner[key] for owner in self._owners if isinstance(owner.get(key), int)), None)
        return said if said in self._ids.values() else None


def _with_added(settings: bytes, tokenizer: bytes) -> bytes:
    """The tokenizer's settings, with the tokens that were added, where they list these."""
    said = _object(settings)
    if said is None or not isinstance(said.get("added_tokens_decoder"), dict):
        return settings
    entries = {str(each["id"]): each for each in json.loads(tokenizer)["added_tokens"]}
    more = {number: {k: v for k, v in each.items() if k != "id"} for number, each in entries.items()}
    said["added_tokens_decoder"] = more | said["added_tokens_decoder"]
    return _text(said)


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(content.decode("utf-8-sig"))
    except DAMAGED:
        return None
    return said if isinstance(said, dict) else None


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")

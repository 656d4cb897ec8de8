"""Which token has which id in the tokenizer that lies beside a model, and its words in messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import DAMAGED, PoolError, raised, showable
from merging.storage.companions import companions, read_companion

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILES = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "source.spm",
    "target.spm",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Names of the files that are a tokenizer, with its settings and templates."""
_PLAIN = ("vocab.json", "vocab.txt")
"""Files in which tokens have the ids that the model has; those of sentencepiece may be shifted on loading."""
_OPAQUE = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "source.spm", "tekken.json")


@dataclass(frozen=True)
class TokenMap:
    """The tokens of a tokenizer and their ids.

    Attributes:
        where: the folder that it lies in.
        files: name of a file → where it lies, of all that belong to the tokenizer.
        ids: token → id.
        added: tokens that were added to the vocabulary proper, in the order of their ids.
        data: what ``tokenizer.json`` holds; empty where there is none.
    """

    where: Path
    files: Mapping[str, Path]
    ids: Mapping[str, int]
    added: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None

    @property
    def kind(self) -> str:
        """The kind of its model, such as ``BPE``; empty where no ``tokenizer.json`` says it."""
        return str((self.data or {}).get("model", {}).get("type") or "")

    @property
    def in_order(self) -> list[str]:
        """Its tokens by their ids."""
        return sorted(self.ids, key=self.ids.__getitem__)


def home_of(checkpoint: Checkpoint) -> Path | None:
    """Finds where a model's tokenizer lies: an adapter's own, else beside its base; None in memory."""
    home = checkpoint.home
    if checkpoint.adapted is not None and _files(checkpoint.path):
        return checkpoint.path
    return None if home.in_memory else home.path


def _files(place: Path) -> dict[str, Path]:
    found = {file.name: file for file in companions(place).files if file.name in FILES}
    vocabularies = (TOKENIZER, *_PLAIN, *_OPAQUE)
    return found if any(name in found for name in vocabularies) else {}


def token_map(checkpoint: Checkpoint) -> TokenMap:
    """Reads the tokenizer beside a model.

    Raises:
        PoolError: there is none, it is damaged, two tokens have one id, or only sentencepiece knows its ids.
    """
    place = home_of(checkpoint)
    files = {} if place is None else _files(place)
    if place is None or not files:
        raise PoolError(
            f"{checkpoint.path} has no tokenizer beside it ({TOKENIZER}, …), so nobody knows the tokens of its rows; "
            "save one there, or leave out `tokenizer_source`"
        )
    plain = next((name for name in _PLAIN if name in files), "")
    if TOKENIZER not in files and not plain:
        raise PoolError(
            f"{next(files[name] for name in _OPAQUE if name in files)}: its ids are known to its own library alone; "
            f"load it with AutoTokenizer of transformers and save it there (save_pretrained), which writes {TOKENIZER}"
        )
    at = files[TOKENIZER if TOKENIZER in files else plain]
    data: Any = None
    try:
        if TOKENIZER in files:
            data = _json(at)
            ids, added = _of_tokenizers(data)
        else:
            ids, added = (_json(at) if plain.endswith(".json") else _lines(at)), {}
        for name in [name for name in ("added_tokens.json", SETTINGS) if name in files]:
            at = files[name]
            said = _json(at)
            said = said if name != SETTINGS else _decoded(said.get("added_tokens_decoder") or {})
            added = dict(said) | added
        ids = _joined(ids, added)
        _check(ids)
    except _Refused as error:
        raise PoolError(f"{at}: {error}") from None
    except DAMAGED as error:
        raise PoolError(f"{at}: no tokenizer can be read there ({raised(error)})") from None
    return TokenMap(place, files, ids, tuple(sorted(added, key=ids.__getitem__)), data)


class _Refused(Exception):
    """Something about a tokenizer's tokens that nobody can merge."""


def known_map(checkpoint: Checkpoint) -> TokenMap | None:
    """The tokenizer beside a model; None where there is none, or none that can be read."""
    try:
        return token_map(checkpoint)
    except PoolError:
        return None


def _json(file: Path) -> Any:
    return json.loads(read_companion(file).decode("utf-8-sig"))


def _lines(file: Path) -> dict[str, int]:
    text = read_companion(file).decode("utf-8-sig").rstrip("\n")
    return {token.rstrip("\r"): number for number, token in enumerate(text.split("\n"))}


def _decoded(said: Mapping[str, Any]) -> dict[str, int]:
    return {str(each["content"]): int(number) for number, each in said.items()}


def _of_tokenizers(data: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """The tokens of a model of ``tokenizers``, and those that were added."""
    listed = data["model"]["vocab"]
    if isinstance(listed, Mapping):
        ids = dict(listed)
    else:
        ids = {str(piece[0]): number for number, piece in enumerate(listed)}
    return ids, {str(each["content"]): each["id"] for each in data.get("added_tokens") or []}


def _joined(ids: dict[str, int], added: Mapping[str, int]) -> dict[str, int]:
    for token, number in added.items():
        if ids.get(token, number) != number:
            raise _Refused(f"token {shown_token(token)} has the ids {ids[token]} and {number}")
    return ids | dict(added)


def _check(ids: Mapping[str, int]) -> None:
    """Refuses ids that are none, or that two tokens have.

    Raises:
        _Refused: it names the first.
    """
    tokens: dict[int, str] = {}
    for token, number in ids.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise _Refused(f"token {shown_token(token)} has no id ({showable(repr(number)[:20])})")
        other = tokens.setdefault(number, token)
        if other is not token:
            raise _Refused(f"tokens {shown_token(other)} and {shown_token(token)} have one id, {number}")
    if not ids:
        raise _Refused("it has no tokens")


def shown_token(token: str) -> str:
    """A token in quotes, its beginning where it is long."""
    return f"'{showable(token[:40])}'"


def first_difference(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[str, int | None, int | None] | None:
    """Finds the first token, by id, that has another id in another map, or none: the token, and its id in each."""
    if one == other:
        return None
    differing = _differing(one, other)
    token = min(differing, key=lambda t: (min(n for n in (one.get(t), other.get(t)) if n is not None), t))
    return token, one.get(token), other.get(token)


def _differing(one: Mapping[str, int], other: Mapping[str, int]) -> Iterable[str]:
    return [token for token in {**one, **other} if one.get(token) != other.get(token)]

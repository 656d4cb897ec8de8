"""A tokenizer's vocabulary, as its files hold it: which token has which number, without any tokenizer's library."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from merging.storage.companions import shown

FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tekken.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "source.spm",
    "target.spm",
)
"""Names of the files that hold a vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens and settings that one file of a tokenizer holds.

    Attributes:
        tokens: number → token.
        merges: merges of byte pairs, in the order in which they are tried.
        rest: everything else that the file says, for JSON.
    """

    tokens: Mapping[int, str]
    merges: tuple[str, ...] = ()
    rest: Mapping[str, Any] | None = None

    def differs(self, other: Vocabulary, first: str, second: str) -> Iterator[str]:
        """Says where two vocabularies differ: how many tokens, and the first that is another one.

        Args:
            other: is compared with this one.
            first: what this one's model is called.
            second: what the other's is called.
        """
        if self.tokens != other.tokens:
            number = min(n for n in {*self.tokens, *other.tokens} if self.tokens.get(n) != other.tokens.get(n))
            yield (
                f"{_count(len(self.tokens), len(other.tokens), 'tokens', first, second)}; the first that differs is "
                f"number {number}, {_token(self.tokens.get(number))} in {first}, {_token(other.tokens.get(number))} "
                f"in {second}"
            )
        if self.merges != other.merges:
            longest = max(len(self.merges), len(other.merges))
            number = next(n for n in range(longest) if self.merges[n : n + 1] != other.merges[n : n + 1])
            pair, another = (v.merges[number] if number < len(v.merges) else None for v in (self, other))
            yield (
                f"{_count(len(self.merges), len(other.merges), 'merges', first, second)}; the first that differs is "
                f"number {number}, {_token(pair)} in {first}, {_token(another)} in {second}"
            )


def read_vocabulary(name: str, content: bytes) -> Vocabulary | None:
    """The vocabulary in a file's bytes; None where they are of a kind that is not known.

    Args:
        name: name of the file.
        content: its bytes.
    """
    try:
        if name.endswith((".model", ".spm")):
            return _of_tiktoken(content) or _of_sentencepiece(content)
        text = content.decode("utf-8-sig")
        if name == "vocab.txt":
            return Vocabulary(dict(enumerate(text.rstrip("\n").split("\n"))))
        if name == "merges.txt":
            lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
            return Vocabulary({}, tuple(lines))
        data = json.loads(text)
        if name in ("vocab.json", "added_tokens.json"):
            return Vocabulary({int(number): str(token) for token, number in data.items()})
        if name == "tokenizer.json":
            return _of_tokenizers(data)
        if name == "tekken.json":
            tokens = {int(each["rank"]): str(each["token_bytes"]) for each in data["vocab"]}
            return Vocabulary(tokens, rest={key: value for key, value in data.items() if key != "vocab"})
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, struct.error):
        pass
    return None


def _of_tokenizers(data: dict[str, Any]) -> Vocabulary:
    """Reads what ``tokenizers`` writes: a mapping (word pieces, byte pairs) or a list with scores (unigrams)."""
    model = data.get("model") or {}
    listed = model.get("vocab") or {}
    if isinstance(listed, Mapping):
        tokens = {int(number): str(token) for token, number in listed.items()}
    else:
        tokens = {number: str(piece[0]) for number, piece in enumerate(listed)}
    for added in data.get("added_tokens") or []:
        tokens[int(added["id"])] = str(added["content"])
    merges = tuple(m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or [])
    scores = [piece[1] for piece in listed] if isinstance(listed, list) else None
    added = {
        str(each["content"]): {k: v for k, v in each.items() if k not in ("id", "content")}
        for each in data.get("added_tokens") or []
    }
    inner = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    rest = {key: value for key, value in data.items() if key not in ("model", "added_tokens")}
    return Vocabulary(tokens, merges, rest | {"model": inner | {"scores": scores}, "added_tokens": added})


def _of_tiktoken(content: bytes) -> Vocabulary | None:
    """Reads lines of a token in base 64 and its number; None where it is another kind of file."""
    if not re.match(rb"[A-Za-z0-9+/]+=* \d+\n", content):
        return None
    pairs = [line.split() for line in content.decode("ascii").splitlines() if line]
    return Vocabulary({int(number): token for token, number in pairs})


def _of_sentencepiece(content: bytes) -> Vocabulary:
    """Field 1 of the message holds a piece each, whose own fields are text, score and kind; the others, settings.

    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    tokens, scores = list[str](), list[float | str | int]()
    rest: dict[str, Any] = {}
    for field, value in _fields(content):
        if field == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            text, score = piece.get(1, b""), piece.get(2, b"\0\0\0\0")
            if not isinstance(text, bytes) or not isinstance(score, bytes):
                raise ValueError("no piece")
            tokens.append(text.decode())
            scores += [round(struct.unpack("<f", score)[0], 6), str(piece.get(3, 1))]
        else:
            key = {2: "trainer_spec", 3: "normalizer_spec", 5: "denormalizer_spec"}.get(field, f"field {field}")
            rest[key] = blake3(value).hexdigest() if isinstance(value, bytes) else value
    if not tokens:
        raise ValueError("no pieces")
    return Vocabulary(dict(enumerate(tokens)), rest=rest | {"scores": scores})


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Reads number and value of a protobuf message's fields (wire types 0, 1, 2 and 5)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("ends within a field")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Reads a number of seven bits a byte, and finds where the next thing begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, at


def _count(first: int, second: int, what: str, one: str, other: str) -> str:
    if first == second:
        return f"{first:,} {what} each"
    return f"{first:,} {what} in {one}, {second:,} in {other}"


def _token(token: str | None) -> str:
    return "none" if token is None else f"'{shown(token[:40])}'"

"""A tokenizer with the tokens of several: the first's ids, rules and merges, and what the others have besides."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from merging.errors import PoolError, raised
from merging.storage.token_maps import TOKENIZER, TokenMap, shown_token

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


def united(first: TokenMap, others: Sequence[TokenMap]) -> tuple[dict[str, int], bytes]:
    """Puts the tokens of several tokenizers together.

    The first one's tokens keep their ids; the others' new ones follow, tokenizer by tokenizer, in the order of their
    ids. Tokens that were added to a vocabulary are added to this one, with the settings of the first that has them;
    other new ones join the vocabulary proper: of byte pairs with the merges that make them, tried last, so that a text
    without them is cut as the first one cuts it.

    Returns:
        Token → id, and the content of ``tokenizer.json``: empty where the first one has all tokens.

    Raises:
        PoolError: tokenizers of several kinds, or of which none can be made.
    """
    ids = dict(first.ids)
    following = max(ids.values()) + 1
    for other in others:
        for token in other.in_order:
            if token not in ids:
                ids[token] = following
                following += 1
    new = [token for token in ids if token not in first.ids]
    if not new:
        return ids, b""
    data = copy.deepcopy(dict(_data(first)))
    ordinary = [token for token in new if not any(token in other.added for other in others)]
    _add(data, others, ids)
    if ordinary:
        _extend(first, data, [(other, _data(other)) for other in others], ids, set(ordinary))
    content = json.dumps(data, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
    _check(first, content, ids)
    return ids, content


def _data(of: TokenMap) -> Mapping[str, Any]:
    """What ``tokenizer.json`` holds, or would hold: transformers is asked where there is none."""
    if of.data is not None:
        return of.data
    try:
        import transformers

        found = transformers.AutoTokenizer.from_pretrained(of.where, local_files_only=True, trust_remote_code=False)
        return dict(json.loads(found.backend_tokenizer.to_str()))
    except Exception as error:  # each kind of tokenizer has its own way to miss something
        raise PoolError(
            f"{of.where}: a union needs its {TOKENIZER}, and transformers cannot make it ({raised(error)[:100]}); "
            "save it there (save_pretrained)"
        ) from None


def _add(data: dict[str, Any], others: Sequence[TokenMap], ids: Mapping[str, int]) -> None:
    """Adds the tokens that others have added, each with the settings of the first that has it."""
    entries = {str(each["content"]): each for each in data.get("added_tokens") or []}
    for other in others:
        own = {str(each["content"]): each for each in (other.data or {}).get("added_tokens") or []}
        for token in other.added:
            entries.setdefault(token, {**_PLAIN, **own.get(token, {}), "id": ids[token], "content": token})
    data["added_tokens"] = sorted(entries.values(), key=lambda each: each["id"])


def _extend(
    first: TokenMap,
    data: dict[str, Any],
    others: Sequence[tuple[TokenMap, Mapping[str, Any]]],
    ids: Mapping[str, int],
    new: set[str],
) -> None:
    """Adds new tokens to the vocabulary proper, and, that it has no gaps, the added ones too."""
    model = data["model"]
    for other, content in others:
        kind, own = content["model"].get("type"), model.get("type")
        if kind != own and new & set(other.ids):
            raise PoolError(
                f"{other.where}: its tokenizer is {kind or 'of no known kind'}, that of {first.where} "
                f"{own or 'of none'}: they have no union; take `tokenizer_source=base`, or first"
            )
    alike = [content for _, content in others if content["model"].get("type") == model.get("type")]
    if isinstance(model["vocab"], Mapping):
        model["vocab"] = dict(sorted({**model["vocab"], **ids}.items(), key=lambda item: item[1]))
        if "merges" in model:
            model["merges"] = [*model["merges"], *_merges(model, alike, new)]
        return
    scores = {piece: score for content in reversed(alike) for piece, score in content["model"]["vocab"]}
    known = len(model["vocab"])
    lowest = min((score for _, score in model["vocab"]), default=0.0) - 10.0
    tokens = {number: token for token, number in ids.items()}
    model["vocab"] = [
        *model["vocab"],
        *(
            [tokens[number], scores[tokens[number]] if tokens[number] in new else lowest]
            for number in range(known, len(ids))
            if number in tokens
        ),
    ]


def _merges(model: Mapping[str, Any], others: Sequence[Mapping[str, Any]], new: set[str]) -> list[Any]:
    """The merges that make new tokens, in the order in which the others try them."""
    prefix = model.get("continuing_subword_prefix") or ""
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    found: dict[tuple[str, str], None] = {}
    for other in others:
        for merge in other["model"].get("merges") or []:
            left, _, right = merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
            if left + right.removeprefix(prefix) in new:
                found.setdefault((left, right))
    return [" ".join(pair) if as_text else list(pair) for pair in found]


def _check(first: TokenMap, content: bytes, ids: Mapping[str, int]) -> None:
    """Refuses a tokenizer that the library reads otherwise, or not at all."""
    try:
        import tokenizers
    except ImportError:
        raise PoolError(
            "a union of tokenizers is written with the library tokenizers; install it: pip install 'merging[text]'"
        ) from None
    try:
        read = tokenizers.Tokenizer.from_str(content.decode()).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises bare exceptions
        raise PoolError(f"{first.where}: the union with its tokenizer cannot be read ({raised(error)[:120]})") from None
    wrong = next((token for token, number in ids.items() if read.get(token) != number), None)
    if wrong is not None or len(read) != len(ids):
        what = "others appear" if wrong is None else f"{shown_token(wrong)} would not be {ids[wrong]}"
        raise PoolError(
            f"{first.where}: its tokenizer's ids have gaps, and a union cannot keep them ({what}); take "
            "`tokenizer_source=base`, or first"
        )

"""Tokenizers of transformers: read from a model's folder, and models that are seen in another one's vocabulary."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from merging.errors import PoolError, TaskError, showable
from merging.models.extras import needed
from merging.models.offline import offline, reason
from merging.storage.token_maps import known_map

if TYPE_CHECKING:
    from merging.models.causal import TransformersCausal
    from merging.models.transformers import TransformersText
    from merging.storage.pool import ModelPool

S = TypeVar("S", bound="TransformersText | TransformersCausal")

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def text_config(config: Any) -> Any:
    """Gives the part of a configuration that is of the text: itself, in most models (in all of transformers 4.40)."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def tokenizer_in(folder: Path, spec: str) -> Any:
    """Reads the tokenizer of a folder; no code from there is run.

    Args:
        folder: the model's folder.
        spec: the model's name, for messages.

    Raises:
        TaskError: there is none, or it cannot be read.
    """
    if not _has_tokenizer(folder):  # transformers would make one up
        raise TaskError(f"{spec}: no tokenizer there ({_FILES[0]}, …); save it beside the model")
    library = needed("transformers", f"{spec} needs Hugging Face's transformers", "text")
    try:
        with offline():
            return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer has its own way to miss a file
        raise TaskError(f"{spec}: no tokenizer can be read there ({reason(error)})") from None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _FILES)


def _check_ids(pool: ModelPool, source: TransformersText | TransformersCausal) -> None:
    """Refuses models whose own tokenizers give tokens other ids than the one that reads the texts.

    Where nothing lies beside the models, or the source reads no texts, there is nothing to compare.
    """
    known = [(model, found.ids) for model in pool.checkpoints if (found := known_map(model)) is not None]
    if not known or not _has_tokenizer(source.folder):
        return
    own = source.tokenizer.get_vocab()
    for model, theirs in known:
        others = [token for token, number in own.items() if theirs.get(token, number) != number]
        if others:
            token = min(others, key=own.__getitem__)
            raise PoolError(
                f"{model.path}: its tokenizer has '{showable(token[:40])}' as {theirs[token]}, and that of "
                f"{source.spec}, which reads the texts, as {own[token]}; scores of other tokens compare nothing"
            )


def in_vocabulary_of(pool: ModelPool, source: S) -> S:
    """Gives a source as it is, or, for models that are seen in one vocabulary, with as many rows as that has.

    Args:
        pool: the models.
        source: the source that builds for them.

    Raises:
        PoolError: the vocabulary, or the tokenizer beside a model, gives this tokenizer's tokens other ids.
    """
    if pool.alignment is None:
        _check_ids(pool, source)
        return source
    own, ids = source.tokenizer.get_vocab(), pool.alignment.ids
    other = next((token for token in sorted(own, key=own.__getitem__) if ids.get(token) != own[token]), None)
    if other is not None:
        raise PoolError(
            f"{source.spec}: its token '{showable(other[:40])}' is {own[other]}, and {ids.get(other, 'missing')} in "
            f"the merge's vocabulary; name the model whose ids that has: transformers:{pool.alignment.leader.path}"
        )
    seen = copy.copy(source)
    seen.config = copy.deepcopy(source.config)
    text_config(seen.config).vocab_size = pool.alignment.rows
    return seen

"""Whose tokenizer lies beside the result: ``tokenizer_source``, where all models have one vocabulary."""

from __future__ import annotations

from merging.mergekit.configuration import Configuration
from merging.mergekit.models import Models
from merging.mergekit.reference import Reference
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import read_companion
from merging.storage.vocabulary import FILES

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of a tokenizer besides its vocabulary."""


def check_tokenizer(found: Configuration, models: Models) -> None:
    """Refuses a ``tokenizer_source`` by which the result would have another vocabulary or tokenizer than it will have.

    Raises:
        MergingError: vocabularies differ, or the tokenizer that is named is not the one that goes along.
    """
    if found.tokenizer is None:
        return
    said, pool = found.document["tokenizer_source"], models.pool
    if found.tokenizer == "base" and found.base is None:
        raise said.wrong("is 'base', and there is no 'base_model'")
    taken = pool.base or pool.checkpoints[0]
    own = _files(taken, FILES)
    for other in pool.with_base:
        if differing := _differing(own, _files(other, FILES)):
            raise said.wrong(
                f"is not supported where vocabularies differ: {taken.name} and {other.name} have unlike {differing}"
            )
    wanted = found.base if found.tokenizer == "base" else found.tokenizer
    if not isinstance(wanted, Reference):
        return
    name = models.names.get(wanted, "")
    source = next((each for each in pool.checkpoints if each.name == name), pool.base if wanted == found.base else None)
    if source is None:
        raise said.wrong(f"is {wanted}, which is none of the models of this merge")
    if differing := _differing(_files(taken, SETTINGS), _files(source, SETTINGS)):
        raise said.wrong(
            f"is {source.name}, and the tokenizer of {taken.name}, which goes along, has another {differing}"
        )


def _files(checkpoint: Checkpoint, names: tuple[str, ...]) -> dict[str, bytes]:
    return {file.name: read_companion(file) for file in checkpoint.extras if file.name in names}


def _differing(first: dict[str, bytes], second: dict[str, bytes]) -> str:
    """Name of a file that is not the same in both; empty: there is none."""
    return next((name for name in sorted({*first, *second}) if first.get(name) != second.get(name)), "")

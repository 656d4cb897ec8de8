"""The tensors of a language model whose rows are its vocabulary: embeddings, heads, and their biases.

transformers is asked, where it knows the architecture: two models without memory, of vocabularies of two sizes, differ
in the shapes of these tensors alone. Otherwise they are told by the number of their rows.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import DAMAGED, PoolError, showable
from merging.storage.adapter_names import names_in_files
from merging.storage.companions import read_companion, readable
from merging.values.partition import TensorInfo
from merging.values.wording import some

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

SIZE, NESTED = "vocab_size", ("text_config", "decoder")
"""The configuration's key for the rows of a vocabulary, and the parts of a configuration that may hold it."""
_MORE = 8


def rows_of_vocabulary(models: Sequence[Checkpoint]) -> tuple[tuple[str, ...], str]:
    """Finds the tensors whose rows are the vocabulary, in all of several models.

    Args:
        models: models of one architecture, whose vocabularies may be of several sizes.

    Returns:
        Their names, in the first model's order, and how they were found: empty where transformers has said it.

    Raises:
        PoolError: nobody knows which they are.
    """
    first = models[0]
    names = [name for name in _asked(first) if all(name in model.tensors for model in models)]
    how = ""
    if not names:
        names = list(_counted(models))
        how = f"rows of the vocabulary were told by their number, which is `{SIZE}` of config.json: {some(names, 4)}"
    if not names:
        raise PoolError(
            f"{first.path}: no tensor is known whose rows are its vocabulary ({SIZE} of config.json says how many "
            "there are); leave out `tokenizer_source`"
        )
    return tuple(names), how


def size_of_vocabulary(checkpoint: Checkpoint) -> int | None:
    """Reads how many rows a model's configuration says its vocabulary has; None where it does not."""
    found = _size(_config(checkpoint)[1])
    return found if isinstance(found, int) and found > 0 else None


def holder(config: Mapping[str, Any]) -> Any:
    """The part of a configuration that says the size of the vocabulary; None where none does."""
    parts = (config, *(config.get(name) for name in NESTED))
    return next((part for part in parts if isinstance(part, Mapping) and SIZE in part), None)


def _size(config: Mapping[str, Any]) -> Any:
    part = holder(config)
    return None if part is None else part[SIZE]


def _config(checkpoint: Checkpoint) -> tuple[Path | None, dict[str, Any]]:
    """The folder of a model's configuration, and what it says."""
    home = checkpoint.home
    if home.in_memory:
        return None, {}
    folder = home.path if home.path.is_dir() else home.path.parent
    try:
        said = json.loads(read_companion(*readable(folder, ("config.json",))).decode("utf-8-sig"))
    except DAMAGED:
        return None, {}
    return (folder, said) if isinstance(said, dict) else (None, {})


def _counted(models: Sequence[Checkpoint]) -> list[str]:
    """Names of the tensors that have, in every model, as many rows as its vocabulary; of an adapter, in its base."""
    sizes = [size_of_vocabulary(model) for model in models]
    return [
        name
        for name in models[0].tensors
        if all(
            size is not None and name in model.home.tensors and model.home.tensors[name][0][:1] == (size,)
            for size, model in zip(sizes, models, strict=True)
        )
    ]


def _asked(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names that transformers says, as they stand in a model's files; none where it does not know the architecture."""
    folder, config = _config(checkpoint)
    if folder is None or not config.get("architectures"):
        return ()
    try:
        found = _built(folder, json.dumps(config, sort_keys=True))
    except Exception:  # transformers raises whatever a configuration of a stranger provokes; nothing is known then
        return ()
    return tuple(name for names in found if (name := _own(names, checkpoint.tensors)))


def _own(names: Sequence[str], tensors: Mapping[str, TensorInfo]) -> str:
    return next((name for name in names if name in tensors), "")


@functools.lru_cache(maxsize=8)
def _built(folder: Path, content: str) -> tuple[tuple[str, ...], ...]:
    """Builds a model with two sizes of its vocabulary, and compares: the names that each tensor may have in files.

    Raises:
        Exception: whatever transformers raises.
    """
    architecture = str(json.loads(content)["architectures"][0])
    import torch
    import transformers

    def built(more: int) -> Any:
        config = transformers.AutoConfig.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="eager",  # none of the Hub's kernels, which are code
        )
        inner = config.get_text_config()
        setattr(inner, SIZE, getattr(inner, SIZE) + more)
        with torch.device("meta"):
            return getattr(transformers, architecture)(config)

    small, large = built(0), built(_MORE)
    shapes = {name: tensor.shape for name, tensor in large.state_dict().items()}
    files, prefix = names_in_files(small), f"{small.base_model_prefix}."
    told = {name: tensor.shape for name, tensor in small.state_dict().items() if tensor.shape != shapes[name]}
    across = next((name for name, shape in told.items() if rows_in(shape) == rows_in(shapes[name])), None)
    if across is not None:
        raise ValueError(f"'{across}' has its vocabulary in another dimension than rows")
    stored = [files.get(name, name) for name in told]
    return tuple((name, name.removeprefix(prefix)) for name in stored)


def check_reaches(model: Checkpoint, names: Sequence[str], ids: Mapping[str, int]) -> None:
    """Refuses a tokenizer with ids beyond the rows of its model.

    Raises:
        PoolError: names the last such token.
    """
    token = max(ids, key=ids.__getitem__)
    for name in names:
        rows = rows_in(model.tensors[name][0])
        if ids[token] >= rows:
            raise PoolError(
                f"{model.path}: token '{showable(token[:40])}' has the id {ids[token]}, and '{name}' has {rows} rows; "
                "save the model with as many rows as its tokenizer has tokens (resize_token_embeddings)"
            )


def rows_in(shape: Sequence[int]) -> int:
    """Counts the rows of a tensor of a vocabulary: its first dimension, or the one that is more than one."""
    return shape[0] if math.prod(shape[1:]) == 1 or shape[0] > 1 else max(shape)

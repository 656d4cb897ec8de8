"""Which files of a folder are a model: one file, or shards with an index, and what lies beside them."""

from __future__ import annotations

import json
from pathlib import Path

from merging.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX_SUFFIX = ".index.json"
COMPANIONS = (
    "config.json", "generation_config.json", "preprocessor_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model",
    "vocab.json", "vocab.txt", "merges.txt", "processor_config.json", "video_preprocessor_config.json",
    "chat_template.jinja", "chat_template.json", "source.spm", "target.spm", "tekken.json", "open_clip_config.json",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "labels.txt", "classes.txt", "class_names.txt", "labels.json", "classes.json", "class_names.json",
    "id2label.json", "label2id.json", "class_to_idx.json",
)  # fmt: skip
"""What transformers, timm, open_clip and sentence-transformers write beside the weights, the configuration first, and
lists of classes; nothing else goes along with a model."""
SMALL = 64 << 20
"""Bytes; larger files beside a model are not carried along."""


def is_model_folder(path: Path) -> bool:
    """Whether a folder is one model: sharded with an index, or a single file beside its ``config.json``."""
    if not path.is_dir():
        return False
    if any(path.glob(f"*{INDEX_SUFFIX}")):
        return True
    return (path / "config.json").is_file() and len([p for p in path.iterdir() if p.suffix in SUFFIXES]) == 1


def is_transformers(config: Path) -> bool:
    """Whether a ``config.json`` is that of a transformers model."""
    try:
        return "model_type" in json.loads(config.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def files_of(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files of a checkpoint, and the keys that its index names."""
    if path.is_file():
        return (path,), ()
    indices = sorted(path.glob(f"*{INDEX_SUFFIX}"), key=lambda p: ("safetensors" not in p.name, p.name))
    if not indices:
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        files = [p for p in files if p.suffix == ".safetensors"] or files
        if len(files) != 1:
            raise CheckpointError(f"{path}: holds {len(files)} checkpoints and no index; name one of them")
        return (files[0],), ()
    try:
        where = json.loads(indices[0].read_bytes())["weight_map"]
        names = {str(name) for name in where.values()}
        keys = tuple(str(key) for key in where)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{indices[0]}: not an index of shards ({type(error).__name__}: {error})") from None
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{indices[0]}: a shard lies outside its folder")
    lost = [name for name in sorted(names) if not (path / name).is_file()]
    if lost or not names:
        raise CheckpointError(f"{indices[0]}: shard {lost[0] if lost else '(none)'} is missing; download it again")
    return tuple(path / name for name in sorted(names)), keys

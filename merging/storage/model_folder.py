"""Which files of a folder are a model, in the order in which libraries look, and what lies beside them."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from pathlib import Path

from merging.errors import DAMAGED, CheckpointError, raised
from merging.storage.file_kind import SUFFIXES
from merging.storage.tensor_file import FORMATS

INDEX_SUFFIX = ".index.json"
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "source.spm",
    "target.spm",
    "tekken.json",
    "open_clip_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "labels.txt",
    "classes.txt",
    "class_names.txt",
    "labels.json",
    "classes.json",
    "class_names.json",
    "id2label.json",
    "label2id.json",
    "class_to_idx.json",
)
"""Names of the files that go along with a model, and no others: those that transformers, timm, open_clip and
sentence-transformers write beside the weights, the configuration first, and lists of classes."""
SMALL = 64 << 20
"""Bytes; larger files beside a model are not carried along."""


LOADED = (
    ("model.safetensors", "diffusion_pytorch_model.safetensors", "open_clip_model.safetensors"),
    ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json"),
    ("pytorch_model.bin", "diffusion_pytorch_model.bin", "open_clip_pytorch_model.bin"),
    ("pytorch_model.bin.index.json", "diffusion_pytorch_model.bin.index.json"),
)
"""Names of the files that ``from_pretrained`` of transformers, diffusers, timm and open_clip takes: the first of these
that is there."""
_NAMES = frozenset(name for names in LOADED for name in names)
_SHARD = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)")
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|sampler|dl_state_dict|scaler|grad_scaler|rng_state|random_states|training_args|trainer_state|"
    r"custom_checkpoint)([_-].*)?\.\w+|(.*_)?(optim_states|zero_pp_rank_.*)\.pt"
)
"""What Trainer, accelerate and DeepSpeed write beside a model to go on from."""


_FOREIGN = (
    (
        "*.distcp",
        "a distributed checkpoint; python -m torch.distributed.checkpoint.format_utils dcp_to_torch makes a file",
    ),
    ("zero_to_fp32.py", "a checkpoint of DeepSpeed; its own zero_to_fp32.py makes a file"),
    ("*.gguf", "GGUF files of llama.cpp, which are quantised; merge the original checkpoint"),
    ("*.h5", "Keras weights; save the PyTorch ones"),
    ("*.msgpack", "Flax weights; save the PyTorch ones"),
    ("*.ckpt.index", "TensorFlow weights; save the PyTorch ones"),
    ("_METADATA", "a checkpoint of Orbax (JAX); save the PyTorch weights"),
)


def foreign(path: Path) -> str:
    """Says what a folder without models is, and the way out; empty where it is nothing that is known."""
    return foreign_names([entry.name for entry in path.iterdir()] if path.is_dir() else [])


def foreign_names(names: Iterable[str]) -> str:
    """Says the same of the names of a folder's files, wherever these lie."""
    listed = list(names)
    return next((words for pattern, words in _FOREIGN if fnmatch.filter(listed, pattern)), "")


def is_weights(path: Path) -> bool:
    """Whether a file is a checkpoint by its name: no hidden file, and nothing that training keeps beside a model."""
    ours = path.name == "overrides.safetensors" and (path.parent / "recipe.json").is_file()
    return names_weights(path.name) and not ours and path.is_file()


def names_weights(name: str) -> bool:
    """Whether a name is a checkpoint's, wherever the file lies."""
    named = Path(name).suffix in SUFFIXES or name.endswith((".pth.tar", ".pt.tar"))
    return named and not is_leftover(Path(name))


def is_shard(name: str) -> bool:
    """Whether a name is that of one of a model's several files."""
    return _SHARD.fullmatch(name) is not None


def is_leftover(path: Path) -> bool:
    """Whether a file is hidden, or what training keeps beside a model to go on from."""
    return path.name.startswith(".") or bool(_LEFTOVER.fullmatch(path.name))


def is_model_folder(path: Path) -> bool:
    """Whether a folder is one model, and not a folder of several.

    It is where a library would load it: weights under a name that libraries look for, an index of shards, or a single
    checkpoint, beside a configuration or what training left.
    """
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    if any(name.endswith(INDEX_SUFFIX) for name in names):
        return True
    weights = [path / name for name in names if is_weights(path / name)]
    one = len(weights) == 1
    # One model in two formats, or in shards whose index was lost: files that a library writes for one model.
    same = bool(weights) and all(file.name in _NAMES or _SHARD.fullmatch(file.name) for file in weights)
    if {"config.json", "adapter_config.json"} & names:
        return one or bool(names & _NAMES)
    if one:
        return same or any(_LEFTOVER.fullmatch(name) for name in names)
    return same


def is_transformers(config: Path) -> bool:
    """Whether a ``config.json`` is that of a transformers model."""
    try:
        return "model_type" in json.loads(config.read_bytes())
    except DAMAGED:
        return False


def _check_parts(path: Path) -> None:
    """Refuses a folder whose model is more than the file that would be read.

    Raises:
        CheckpointError: an adapter lies beside a whole model, or modules with weights of their own in its folders.
    """
    whole = [name for names in LOADED for name in names if (path / name).is_file()]
    if whole and (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path}: an adapter (adapter_config.json) lies beside {whole[0]}, and libraries load both; put it "
            "into its base (merge_and_unload of PEFT), or name the file alone"
        )
    if (path / "modules.json").is_file():  # sentence-transformers
        parts = [
            entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and any(map(is_weights, entry.iterdir()))
        ]
        if whole and parts:
            raise CheckpointError(
                f"{path}: is a model in parts, and {parts[0]} holds weights of its own, which would be left out; merge "
                "each part by itself"
            )


def files_of(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Finds the files of a checkpoint, in the order in which libraries look, and the keys that its index names.

    Raises:
        CheckpointError: a folder that holds none or several, or an index that cannot be followed.
    """
    if path.is_file():
        return (path,), ()
    _check_parts(path)
    chosen = next((path / name for names in LOADED for name in names if (path / name).is_file()), None)
    indices = sorted(path.glob(f"*{INDEX_SUFFIX}"), key=lambda p: ("safetensors" not in p.name, p.name))
    if chosen is None and indices:
        chosen = indices[0]
    if chosen is None:
        files = sorted(entry for entry in path.iterdir() if is_weights(entry))
        safe = tuple(suffix for known in FORMATS if known.safe for suffix in known.suffixes)
        files = [p for p in files if p.suffix in safe] or files
        if files and all(_SHARD.fullmatch(file.name) for file in files):
            raise CheckpointError(
                f"{path}: holds {len(files)} shards and not their index (*{INDEX_SUFFIX}); copy it too"
            )
        if len(files) != 1:
            below = [entry.name for entry in sorted(path.iterdir()) if is_model_folder(entry)]
            hint = f" (models lie in its folders {', '.join(below[:3])})" if below else ""
            if not files and foreign(path):
                raise CheckpointError(f"{path}: is {foreign(path)}")
            raise CheckpointError(f"{path}: holds {len(files)} checkpoints and no index; name one of them{hint}")
        chosen = files[0]
    if not chosen.name.endswith(INDEX_SUFFIX):
        return (chosen,), ()
    try:
        where = json.loads(chosen.read_bytes())["weight_map"]
        names = {str(name) for name in where.values()}
        keys = tuple(str(key) for key in where)
    except DAMAGED as error:
        raise CheckpointError(f"{chosen}: not an index of shards ({raised(error, whole=True)})") from None
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{chosen}: a shard lies outside its folder")
    lost = [name for name in sorted(names) if not (path / name).is_file()]
    if lost or not names:
        raise CheckpointError(f"{chosen}: shard {lost[0] if lost else '(none)'} is missing; download it again")
    return tuple(path / name for name in sorted(names)), keys

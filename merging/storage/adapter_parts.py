"""The tensors of an adapter's file, sorted by what they do to which tensor of the base."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from merging.errors import CheckpointError, nearest, showable
from merging.storage.adapter_folder import CONFIG, WAY, AdapterConfig
from merging.storage.adapter_names import NamesInFiles
from merging.storage.dtypes import is_floating
from merging.values.partition import TensorInfo

PREFIX = "base_model.model."
"""Stands before every name in PEFT's files."""
_PART = re.compile(r"(?P<module>.*?)\.?(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?P<rest>(\.\w+)*)")
_RESTS = {"": "", ".weight": "", ".default": "", ".default.weight": "", ".bias": "bias", ".default.bias": "bias"}
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")
_OTHER = re.compile(r"(^|[._])lora_|trainable_tokens_|(^|\.)(ia3_|hada_|lokr_|vera_|prompt_|boft_|oft_)")
_TOKENS = ".token_adapter.trainable_tokens_delta"
_TWICE, _TWICE_UNTIL = ".base_layer.out_proj", (0, 21, 2)
ENDS = ("weight", "in_proj_weight")
"""Names of the tensor that a module's update is added to: its weight; of attention, that of all projections."""
A, B, EMBEDDING_A, EMBEDDING_B = "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"
MAGNITUDE = "lora_magnitude_vector"


@dataclass(frozen=True, kw_only=True)
class Change:
    """The change of one tensor of the base, by the keys of the adapter's file.

    Attributes:
        whole: the tensor itself, trained whole; empty: the base's.
        first, second: lora_B and lora_A, or an embedding's; empty where nothing is multiplied.
        magnitude: lengths of DoRA; empty where there are none.
        added: what is added with the update's scale: the bias of lora_B.
        tokens: rows that stand in the place of the tensor's own.
        at: which rows these are.
        scale: the number that the product, or what is added, is multiplied with.
        rank: rank of the product.
        turned: whether the weight holds the product's transpose, as GPT-2's layers and embeddings do.
    """

    whole: str = ""
    first: str = ""
    second: str = ""
    magnitude: str = ""
    added: str = ""
    tokens: str = ""
    at: tuple[int, ...] = ()
    scale: float = 1.0
    rank: int = 0
    turned: bool = False


def changes(
    config: AdapterConfig, own: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo], names: NamesInFiles
) -> dict[str, Change]:
    """Finds what an adapter does to each tensor of its base.

    Args:
        config: what its configuration says.
        own: the tensors of its file: key → (shape, dtype name).
        base: the base's: name → (shape, dtype name).
        names: translates a module's names in memory to the base's.

    Returns:
        Name of a tensor → what is done to it; names that the base lacks are those of modules that were trained whole.

    Raises:
        CheckpointError: a part of another kind, one without its counterpart, or one that does not fit the base.
    """
    modules, found, twice = dict[str, dict[str, str]](), dict[str, Change](), set[str]()
    for key in own:
        name = key.removeprefix(PREFIX)
        match = _PART.fullmatch(name)
        if name.endswith(_TOKENS):
            stored = names.stored(f"{_plain(f'{name.removesuffix(_TOKENS)}.')[:-1]}.weight", base)
            found[stored] = _of_tokens(config, stored, key, own, base)
            continue
        if match is None:
            if _OTHER.search(name):
                raise CheckpointError(f"{config.folder}: '{showable(name)}' is no part of a LoRA that is known; {WAY}")
            stored = names.stored(called(key), base)
            _check_whole(config, stored, own[key], base, names.where)
            found[stored] = Change(whole=key)
            continue
        if match["rest"] not in _RESTS or (_RESTS[match["rest"]] and match["part"] != B):
            raise CheckpointError(
                f"{config.folder}: '{showable(name)}' is of an adapter under a name of its own; save that one alone"
            )
        module = _plain(f"{match['module']}.")[:-1]
        if match["module"].endswith(_TWICE):
            twice.add(module)
        parts = modules.setdefault(module, {})
        parts[match["part"] + _RESTS[match["rest"]]] = key
    if config.said.get("trainable_token_indices") and not any(change.tokens for change in found.values()):
        raise CheckpointError(
            f"{config.folder}: says that it trains single tokens, and holds none (trainable_tokens_delta); save the "
            "adapter again"
        )
    fits = dict(base) | {name: own[change.whole] for name, change in found.items() if change.whole}
    taken = set[str]()
    for module, parts in modules.items():
        for name, change in _of_module(config, own, fits, names, module, parts):
            if name in taken:
                raise CheckpointError(f"{config.folder}: adapts '{name}' twice; give another adapter")
            taken.add(name)
            if module in twice:
                change = replace(change, scale=change.scale * _times(config, module))
            if name in found and found[name].tokens:
                raise CheckpointError(f"{config.folder}: adapts '{name}' twice; give another adapter")
            found[name] = replace(change, whole=found[name].whole) if name in found else change
    return found


def _of_tokens(
    config: AdapterConfig, name: str, key: str, own: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]
) -> Change:
    """The change of some rows of an embedding.

    Raises:
        CheckpointError: the base has no such embedding, or other rows.
    """
    at, shape = config.tokens_of(name.removesuffix(".weight")), own[key][0]
    rows, columns = (*base[name][0], 0, 0)[:2] if name in base else (0, 0)
    if shape != (len(at), columns) or not all(0 <= row < rows for row in at) or len(set(at)) < len(at):
        raise CheckpointError(
            f"{config.folder}: trains {len(at)} tokens of '{showable(name)}' with rows of {list(shape)}, which its "
            "base does not have; give the model that it was trained on with `base`"
        )
    return Change(tokens=key, at=at)


def _times(config: AdapterConfig, module: str) -> int:
    """How often PEFT adds the update of the last layer of torch's attention, in training and in merging: twice.

    It does so up to the version that is known here (https://github.com/huggingface/peft/pull/3774).

    Raises:
        CheckpointError: a newer version wrote the adapter, so that nobody can tell.
    """
    numbers = tuple(map(int, re.findall(r"\d+", str(config.said.get("peft_version") or "0"))[:3]))
    if numbers > _TWICE_UNTIL:
        raise CheckpointError(
            f"{config.folder}: adapts torch's attention ('{showable(module)}'), whose update PEFT added twice up to "
            f"{'.'.join(map(str, _TWICE_UNTIL))}, and a newer one wrote it; {WAY}"
        )
    return 2


def module_of(key: str) -> tuple[str, bool]:
    """The module in memory that a factor updates, by its key, and whether it is an embedding."""
    match = _PART.fullmatch(key.removeprefix(PREFIX))
    return ("", False) if match is None else (_plain(f"{match['module']}.")[:-1], "embedding" in match["part"])


def called(key: str) -> str:
    """The name in memory of a tensor that was saved whole, by its key."""
    return _plain(key.removeprefix(PREFIX))


def _plain(name: str) -> str:
    """A name without what PEFT's own modules add to it."""
    return _WRAPPED.sub("", f".{name}")[1:]


def _check_whole(
    config: AdapterConfig, name: str, info: TensorInfo, base: Mapping[str, TensorInfo], where: str
) -> None:
    """Refuses a tensor that was trained whole and has no place in the base.

    Raises:
        CheckpointError: it is neither the base's nor of a module that was trained whole, or of another shape.
    """
    saved = any(f".{part}." in f".{name}" for part in config.saved)
    if name not in base and not saved:
        raise CheckpointError(
            f"{config.folder}: brings '{showable(name)}', which its base {where} does not have{_near(name, base)}; "
            "give the model that it was trained on with `base`"
        )
    resized = "embed" in name or "lm_head" in name  # PEFT saves both whole where a base was resized
    if name in base and base[name][0] != info[0] and not saved and not resized:
        raise CheckpointError(_shapes(config, name, info[0], base[name][0], where))


def _of_module(
    config: AdapterConfig,
    own: Mapping[str, TensorInfo],
    base: Mapping[str, TensorInfo],
    names: NamesInFiles,
    module: str,
    parts: Mapping[str, str],
) -> Iterator[tuple[str, Change]]:
    """The changes of one module's weight, and of its bias.

    Raises:
        CheckpointError: a part is missing, or does not fit the base.
    """
    embedding = EMBEDDING_A in parts or EMBEDDING_B in parts
    pair = (EMBEDDING_B, EMBEDDING_A) if embedding else (B, A)
    lost = next((part for part in pair if part not in parts), None)
    if lost is not None:
        raise CheckpointError(f"{config.folder}: '{showable(module)}' has no {lost}; save the adapter again")
    name = next((n for end in ENDS if (n := names.stored(f"{module}.{end}", base)) in base), None)
    if name is None:
        raise CheckpointError(
            f"{config.folder}: adapts '{showable(module)}', which its base {names.where} does not have"
            f"{_near(f'{module}.weight', base)}; give the model that it was trained on with `base`"
        )
    shape, dtype = base[name]
    if not is_floating(dtype):
        raise CheckpointError(f"{names.where}: '{name}' holds {dtype} numbers (quantised); give the full model as base")
    first, second = (own[parts[part]][0] for part in pair)
    rank = second[0] if second else 0
    turned = embedding
    if len(shape) == 2 and not embedding:  # the shapes tell, unless the weight is square
        own_shape = (first[0], *second[1:])
        square = shape[0] == shape[1]
        turned = names.transposed(module, config.transposed) if square else own_shape == shape[::-1]
    outputs, inputs = (shape[1:], shape[:1]) if turned else (shape[:1], shape[1:])
    if not rank or len(shape) < 2 or (first, second) != ((*outputs, rank, *[1] * (len(shape) - 2)), (rank, *inputs)):
        made = (*second[1:], *first[:1]) if turned else (*first[:1], *second[1:])
        raise CheckpointError(_shapes(config, name, made, shape, names.where))
    if rank != config.rank_of(module):
        raise CheckpointError(
            f"{config.folder}: the update of '{showable(module)}' has rank {rank}, and {CONFIG} says "
            f"{config.rank_of(module)}; save the adapter again"
        )
    magnitude = parts.get(MAGNITUDE, "")
    if config.directions and not magnitude:
        raise CheckpointError(f"{config.folder}: '{showable(module)}' has no {MAGNITUDE}; save the adapter again")
    if magnitude and math.prod(own[magnitude][0]) != outputs[0]:
        raise CheckpointError(_shapes(config, name, own[magnitude][0], shape, names.where))
    scale = config.scale_of(module, rank)
    factors = Change(first=parts[pair[0]], second=parts[pair[1]], rank=rank, turned=turned)
    yield name, replace(factors, magnitude=magnitude, scale=scale)
    if f"{B}bias" in parts:
        bias = names.stored(f"{module}.bias", base)
        if bias not in base or base[bias][0] != own[parts[f"{B}bias"]][0]:
            raise CheckpointError(f"{config.folder}: adapts the bias of '{showable(module)}', and its base has none")
        yield bias, Change(added=parts[f"{B}bias"], scale=scale)


def _near(name: str, base: Mapping[str, TensorInfo]) -> str:
    """Says the base's nearest name, where there is one."""
    near = nearest(name, base)
    return f" (it has '{near}')" if near else ""


def _shapes(config: AdapterConfig, name: str, own: tuple[object, ...], shape: tuple[int, ...], where: str) -> str:
    return (
        f"{config.folder}: its update of '{name}' is for {list(own)}, and its base {where} has {list(shape)}: it was "
        "trained on another model; give that one with `base`"
    )

"""Weights that are stored as several tensors: their averages, tensor by tensor, are not the average of the weights.

A quantised weight is codes times scales, an adapter's update a product of two matrices, a weight-normed one a direction
times a length. The mean of products is not the product of means (int8 codes with row scales: a relative error of 1.5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import PoolError
from merging.storage.dtypes import is_floating, itemsize, size_of
from merging.values.partition import TensorInfo
from merging.values.wording import some

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

QUANTISED, ADAPTER, NORMED, PRUNED, MASK = "quantised", "adapter", "weight norm", "pruning", "mask"
_DEQUANTISE = "dequantise the models (load them with their library and save them in bfloat16), then merge"
WAYS_OUT = {
    QUANTISED: _DEQUANTISE,
    ADAPTER: "give adapters as PEFT saves them (a folder with adapter_config.json), or put each into its base "
    "(merge_and_unload), then merge the full models",
    NORMED: "take the parametrisation off (torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm), "
    "or merge the parts as they are with `as_stored`",
    MASK: "multiply the weights by their masks first, or keep the first model's with `as_stored`",
    PRUNED: "make the pruning permanent (torch.nn.utils.prune.remove), or merge the parts as they are with `as_stored`",
}
AS_STORED = frozenset({NORMED, PRUNED, MASK})
"""Kinds whose parts may be merged where the user says so: the result is a model of the same kind."""
_KINDS = (
    (
        QUANTISED,
        (
            r"SCB|weight_format|absmax|quant_map|quant_state\..*|nested_absmax|nested_quant_map",
            r"qweight|qzeros|W_q|weight_packed|.*_scale_inv|_packed_params\..*",
        ),
    ),
    (
        ADAPTER,
        (r"(hada|lokr)_w\d.*|ia3_l(\..*)?|vera_lambda_\w+(\..*)?|b?oft_[rs](\..*)?|oft_blocks|vblora_.*|dora_scale",),
    ),
    (NORMED, (r"\w+_g|parametrizations\.\w+\.original\d?|\w+_orig",)),
    (PRUNED, (r"\w+_mask",)),
    (MASK, (r"\w*mask",)),
)
_PATTERNS = tuple((kind, re.compile("|".join(f"(?:{text})" for text in texts))) for kind, texts in _KINDS)
_LORA = re.compile(r"(?<![a-z])lora(?![a-z])", re.IGNORECASE)
"""A word of a name: ``lora_A``, ``lora_a``, ``to_q_lora``, ``qkv_lora1``; not ``flora``."""
_PLAIN = re.compile(r"bias|weight|gamma|beta|running_\w+|(\w+_)?(norm|ln)\w*")
"""Last parts of names that are no scale, whatever shape they have."""
_PIECE = 16 << 20
"""Bytes that are compared at once."""


@dataclass(frozen=True)
class Factored:
    """The tensors of one module that make a weight together.

    Attributes:
        kind: ``quantised``, ``adapter``, ``weight norm`` or ``pruning``.
        tensors: names of the tensors.
        why: how that was seen.
    """

    kind: str
    tensors: tuple[str, ...]
    why: str


def factored(tensors: Mapping[str, TensorInfo]) -> Iterator[Factored]:
    """Groups of tensors that make a weight together, by their names, shapes and dtypes; nothing is read.

    Args:
        tensors: name → (shape, dtype name).
    """
    modules: dict[str, list[str]] = {}
    for name in tensors:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    said: set[str] = set()
    lora = tuple(name for name in tensors if _LORA.search(name))
    if lora:
        said |= set(lora)
        yield Factored(ADAPTER, lora, "by their names")
    for name in tensors:
        for kind, pattern in _PATTERNS:
            tail = next((t for t in _tails(name) if pattern.fullmatch(t)), None)
            if tail is None or name in said:
                continue
            group = _group(kind, name, tail, tensors)
            if group:
                said |= set(group)
                yield Factored(kind, group, "by their names")
    narrow = [name for name, (_, dtype) in tensors.items() if dtype.startswith("float8")]
    if narrow and not said & set(narrow):
        scales = [name for name in tensors if "scale" in name.lower() and name not in narrow]
        if scales:
            yield Factored(QUANTISED, (narrow[0], *scales), "fp8 tensors beside scales")
            return
    for place, names in modules.items():
        own = [name for name in names if name in narrow]
        wide = [
            name
            for name in names
            if (place or math.prod(tensors[name][0]) == 1)
            and tensors[name][1] in _WIDE
            and any(_scales(tensors, name, other) for other in own)
        ]
        if wide and not said & {*own, *wide}:
            yield Factored(QUANTISED, (*own, *wide), "an fp8 tensor beside a wider one of its scales' shape")


_WIDE = ("float32", "float16", "bfloat16")


def _tails(name: str) -> Iterator[str]:
    """Cuts ``a.b.c`` to ``c`` and ``b.c``: what the name says within its module, or within a part of one."""
    parts = name.split(".")
    for count in range(1, min(len(parts), 4) + 1):
        yield ".".join(parts[-count:])


def _group(kind: str, name: str, tail: str, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The tensors that go with one whose name tells; none where the name alone means nothing."""
    place = name[: len(name) - len(tail)]
    if kind == ADAPTER:
        return (name,)
    if kind == QUANTISED:
        module = place.rstrip(".").removesuffix("weight").rstrip(".")
        beside = [other for other in tensors if other.rpartition(".")[0] == module and other != name]
        return (*beside, name)
    if kind == MASK:
        return (name,) if is_floating(tensors[name][1]) else ()  # a boolean one is told by its values
    if kind == PRUNED:
        other = place + tail.removesuffix("_mask") + "_orig"
        return (other, name) if other in tensors else ()
    if tail.startswith("parametrizations."):  # the weight is a function of all that stands there
        module = name.rpartition(".")[0] + "."
        return tuple(other for other in tensors if other.startswith(module))
    stem = place + tail.rpartition("_")[0]
    if tail.endswith("_g") and f"{stem}_v" in tensors and _is_length(tensors[name][0], tensors[f"{stem}_v"][0]):
        return (name, f"{stem}_v")
    vectors = (f"{stem}_u", f"{stem}_v")
    if tail.endswith("_orig") and all(v in tensors and len(tensors[v][0]) == 1 for v in vectors):
        return (name, *vectors) if len(tensors[name][0]) > 1 else ()
    return ()


def _is_length(lengths: tuple[int, ...], directions: tuple[int, ...]) -> bool:
    """Whether a tensor has the shape of the lengths of another one's rows: one in all dimensions but one."""
    return math.prod(lengths) < math.prod(directions) and sum(size > 1 for size in lengths) <= 1


def _narrowest(checkpoints: Sequence[Checkpoint], name: str) -> str:
    """The dtype in which a tensor is stored where it takes the least: models may hold it in several."""
    return min((checkpoint.stored[name][1] for checkpoint in checkpoints), key=itemsize)


def _scales(tensors: Mapping[str, TensorInfo], wide: str, narrow: str) -> bool:
    """Whether a tensor has the shape of another one's scales: one, one a row, or one a block."""
    (shape, _), (whole, _) = tensors[wide], tensors[narrow]
    if _PLAIN.fullmatch(wide.rpartition(".")[2]):
        return False
    if math.prod(shape) == 1 or shape == whole[:1] or shape == (*whole[:1], *[1] * (len(whole) - 1)):
        return True
    return len(shape) == len(whole) and shape != whole and all(a <= b for a, b in zip(shape, whole, strict=True))


def factor_faults(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[str, str]]:
    """Says why these models' averages, tensor by tensor, would not be averages of their weights: kind, and a sentence.

    By names, shapes and dtypes; and without: an integer tensor of more than one element that differs between models
    can only be codes (or data), and comes from one of them while everything else is averaged; a boolean one is a mask.
    Nothing is said of what is the same in all models.
    """
    if len(checkpoints) < 2:
        return
    said = set[str]()
    tensors = {name: (shape, _narrowest(checkpoints, name)) for name, (shape, _) in checkpoints[0].tensors.items()}
    for found in factored(tensors):
        if found.kind in said:
            continue
        differing = _differing(checkpoints, found.tensors)
        if differing is not None:
            said.add(found.kind)
            parts = some([f"'{name}'" for name in found.tensors], 3, counted=False)
            fault = (
                f"{parts} make one weight ({found.kind}, {found.why}), and differ between {checkpoints[0].path} "
                f"and {differing.path}: averages of the parts are no average of the weights; {WAYS_OUT[found.kind]}"
            )
            yield found.kind, fault
    if QUANTISED in said:
        return
    for name, (shape, dtype) in tensors.items():
        if is_floating(dtype) or math.prod(shape) < 2:
            continue
        differing = _differing(checkpoints, (name,))
        if differing is not None:
            if dtype == "bool":
                fault = (
                    f"'{name}' is a mask that differs between {checkpoints[0].path} and {differing.path}: the first "
                    f"model's would go with averages of weights under other masks; {WAYS_OUT[MASK]}"
                )
                yield MASK, fault
                continue
            fault = (
                f"'{name}' holds {dtype} numbers that differ between {checkpoints[0].path} and {differing.path}: "
                f"such tensors are not averaged, and these look like codes of a quantised weight; {_DEQUANTISE}"
            )
            yield QUANTISED, fault
            return


def check_factors(checkpoints: Sequence[Checkpoint], *, as_stored: bool = False) -> tuple[str, ...]:
    """Refuses models whose weights are stored as several tensors, where these differ between them.

    Args:
        checkpoints: models of one architecture.
        as_stored: merge the parts of weight norm and pruning as they are; the notes that are returned say so.

    Raises:
        PoolError: names the tensors and the way out.
    """
    notes = []
    for kind, fault in factor_faults(checkpoints):
        if kind not in AS_STORED or not as_stored:
            raise PoolError(fault)
        notes.append(f"merged as stored: {fault.partition(';')[0]}")
    return tuple(notes)


def _differing(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> Checkpoint | None:
    """The first checkpoint in which one of the tensors is not the first one's, by their bytes."""
    for name in names:
        size = size_of(checkpoints[0].tensors[name])
        for begin in range(0, size, _PIECE):
            first, other = (np.empty(min(_PIECE, size - begin), np.uint8) for _ in range(2))
            checkpoints[0].read_bytes(name, begin, first.data)
            for checkpoint in checkpoints[1:]:
                checkpoint.read_bytes(name, begin, other.data)
                if not np.array_equal(first, other):
                    return checkpoint
    return None

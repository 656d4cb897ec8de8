"""A network's blocks in the order of its depth: stem, repeated blocks, head, found in any library's tensor names.

A block is a numbered part (``blocks.3``, ``layer2.1``, ``encoder_layer_7``, ``denselayer4``) with at least two weight
matrices, whose numbered brothers are mostly such parts too. Where numbered parts lie inside one another (stages of
blocks), the innermost ones are the blocks. What lies between two blocks joins the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import nn

_NUMBERED = re.compile(r"(.*?)(\d+)([a-z]?)$")
_TOWERS = ("visual", "vision_model")
"""Names of an image tower: beside one, everything but the classifier is what is left of a text tower."""
_NOT_BLOCKS = re.compile(r"^(aux|experts?$)", re.IGNORECASE)
"""Auxiliary classifiers reach no logit in evaluation; experts are one layer, not a sequence."""
_FIRST = re.compile(
    r"embed|token|^stem|^conv|^bn|^pos|_pos|latent|^downsample|^ln_pre|^norm_pre|^pre_la?yr?norm|^patch|^w[tp]e$|"
    r"^project_in$",
    re.IGNORECASE,
)
_LAST = re.compile(
    r"^(norm|fc|fc_norm|head.*|heads|classifier.*|classification_head|conv_head|ln_post|ln_final|layernorm|pooler|"
    r"attn_pool|attnpool|proj|text_projection|logit_scale|logit_bias|norm\d|last_.*|embed_out|project_out)$"
)
"""Words of what stands before and after the blocks: files in alphabetical order do not say."""
_FINAL = re.compile(r"^final_(layer_?)?norm$")
"""Norms that close a decoder, also where that defines them before its blocks (OPT); an encoder's are between blocks."""
_LAST_BY_NAME = re.compile(r"^(linear|lm_head|final_.*|post_layernorm|score|logits)$")
"""More words of the end, which count only where names are all there is: a model may begin with a ``linear``."""

Key = tuple[tuple[int, int, str], ...]


def blocks(tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> dict[str, list[str]]:
    """Divides a model into stem, blocks and head: name → its tensors, in the network's order.

    Where nothing is repeated, every layer is a block.

    Args:
        tensors: name → (shape, dtype name) of all of the model's tensors.
        module: the model, whose order of definition says what comes first; without one, numbers and the usual names.
    """
    order = _order(tensors, module)
    names = sorted(tensors, key=lambda name: order[name])
    paths = _blocks(tensors)
    home = {name: next((path for path in reversed(_numbered(name)) if path in paths), None) for name in names}
    first = {path: order[name] for name, path in reversed([(n, home[n]) for n in names]) if path is not None}
    if not first:  # nothing repeated: every layer is a part
        layers: dict[str, list[str]] = {}
        for name in names:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return layers
    sequence = sorted(first, key=first.__getitem__)
    groups: dict[str, list[str]] = {"stem": [], **{path: [] for path in sequence}, "head": []}
    for name in names:
        groups[home[name] or _between(name, order[name], sequence, first)].append(name)
    return {name: group for name, group in groups.items() if group}


def _order(tensors: Mapping[str, TensorInfo], module: nn.Module | None) -> dict[str, Key]:
    """A sort key for every tensor: the model's order of definition, or else numbers and the usual words."""
    state = list(module.state_dict()) if module is not None else []
    if set(state) == set(tensors):
        return {name: ((0, place, ""),) for place, name in enumerate(state)}
    keys = {name: tuple(_rank(part) for part in name.split(".")) for name in tensors}
    if any(name.startswith("conv_head.") for name in tensors):  # timm's EfficientNets, whose bn2 comes after it
        keys |= {name: ((2, 2, "bn2"), *key[1:]) for name, key in keys.items() if name.startswith("bn2.")}
    return keys


def _rank(part: str) -> tuple[int, int, str]:
    where = 2 if _LAST.search(part) or _LAST_BY_NAME.search(part) else 0 if _FIRST.search(part) else 1
    found = _NUMBERED.match(part)
    return where, int(found[2]) if found else -1, part


def _between(name: str, key: Key, sequence: Sequence[str], first: Mapping[str, Key]) -> str:
    """Where a tensor outside of all blocks belongs: stem, head, or the next block."""
    stage = _container(name, sequence)
    said = next((part for part in name.split(".") if _LAST.match(part) or _FIRST.search(part)), "")
    parts = name.split(".")
    if not stage and (_LAST.match(said) or ("encoder" not in parts and any(map(_FINAL.match, parts)))):
        return "head"
    following = next((path for path in stage or sequence if first[path] > key), None)
    if following is None and stage:  # after the last block of its stage
        rest = sequence[sequence.index(stage[-1]) + 1 :]
        following = rest[0] if rest else None
    return "head" if following is None else "stem" if following == sequence[0] else following


def _container(name: str, sequence: Sequence[str]) -> list[str]:
    """The blocks in the innermost numbered part (a stage) that holds a tensor and any block."""
    for path in reversed(_numbered(name)):
        held = [block for block in sequence if block.startswith(f"{path}.")]
        if held:
            return held
    return []


def _blocks(tensors: Mapping[str, TensorInfo]) -> frozenset[str]:
    """Paths of the blocks."""
    parts = [name.split(".") for name in tensors]
    tower = next((t for t in _TOWERS if any(t in p[:2] for p in parts)), None)
    matrices: dict[str, int] = {}
    for name, (shape, _) in tensors.items():
        above = name.split(".")[:-1]
        if len(shape) < 2 or any(_NOT_BLOCKS.match(part) for part in above) or (tower and tower not in above[:2]):
            continue
        for path in _numbered(name):
            matrices[path] = matrices.get(path, 0) + 1
    brothers: dict[str, list[str]] = {}
    for path in matrices:
        pattern = ".".join(_NUMBERED.sub(r"\1#", part) for part in path.split("."))
        brothers.setdefault(pattern, []).append(path)
    found: set[str] = set()
    for paths in brothers.values():
        large = [path for path in paths if matrices[path] >= 2]
        if len(large) >= 2 and 2 * len(large) > len(paths):
            found.update(large)
    stages = {outer for path in found for outer in _numbered(f"{path}.")[:-1]}
    return frozenset(found - stages)


def _numbered(name: str) -> list[str]:
    """The numbered parts that hold a tensor, outermost first.

    >>> _numbered("stages.1.blocks.4.mlp.fc1.weight")
    ['stages.1', 'stages.1.blocks.4', 'stages.1.blocks.4.mlp.fc1']
    """
    parts = name.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end, part in enumerate(parts) if _NUMBERED.match(part)]

"""Stem, repeated blocks and head, found in a model's tensor names, whatever library named them.

A block is a numbered part (``blocks.3``, ``layer2.1``, ``encoder_layer_7``, ``denselayer4``) with at least two weight
matrices, whose numbered brothers are mostly such parts too. Where numbered parts lie inside one another (stages of
blocks), the innermost ones are the blocks. What lies between two blocks joins the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from merging.errors import PartitionError
from merging.plugins.options import option
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn

_NUMBERED = re.compile(r"(.*?)(\d+)([a-z]?)$")
_TOWERS = ("visual", "vision_model")
"""Names of an image tower: beside one, everything but the classifier is what is left of a text tower."""
_NOT_BLOCKS = re.compile(r"^(aux|experts?$)", re.IGNORECASE)
"""Auxiliary classifiers reach no logit in evaluation; experts are one layer, not a sequence."""
_FIRST = re.compile(r"embed|token|^stem|^conv|^bn|^pos|_pos|latent|^downsample|^ln_pre|^norm_pre|^patch", re.IGNORECASE)
_LAST = re.compile(
    r"^(norm|fc|fc_norm|head.*|heads|classifier.*|classification_head|conv_head|ln_post|ln_final|layernorm|pooler|"
    r"attn_pool|attnpool|proj|text_projection|logit_scale|logit_bias|norm\d|last_.*)$"
)
"""Words of what stands before and after the blocks: files in alphabetical order do not say."""

Key = tuple[tuple[int, int, str], ...]


@partitioners.register("block")
@dataclass(frozen=True)
class Block(Partitioner):
    """Divides any model into stem, repeated blocks and head, by the names and shapes of its tensors.

    With a model, its own order of definition says what comes first. Where nothing is repeated, every layer is a block.
    ``count`` joins consecutive ones so that the largest component has as few parameters as possible; text towers'
    leftovers and auxiliary heads always share a component with a part that reaches the logits.
    """

    summary: ClassVar[str] = "stem, repeated blocks and head of any model; the option count=N joins them"
    paper: ClassVar[str] = "finer than the block hierarchies of Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = (
        "stem | b_1 | … | b_n | head; with count N: the N runs of these that minimise max Σ parameters"
    )
    limits: ClassVar[str] = (
        "Names must show the repetition. Without a model, stem and head are told apart by their usual names, and order "
        "by numbers."
    )

    count: int | None = option(None, "join everything into so many consecutive groups of about equal size", low=1)

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a block, before them the stem, after them the head.

        Raises:
            PartitionError: ``count`` is larger than the number of parts; the largest possible one is named.
        """
        order = _order(tensors, module)
        groups = _parts(tensors, order)
        if self.count is None:
            return Partition.of_groups(groups)
        if self.count > len(groups):
            raise PartitionError(
                f"option 'count' of 'block' is {self.count}, but this model has {len(groups)} parts; "
                f"use {len(groups)} at most, or `partitioner=layer`"
            )
        names = list(groups)
        sizes = [sum(prod(tensors[name][0]) for name in group) for group in groups.values()]
        joined: dict[str, list[str]] = {}
        for begin, end in balanced(sizes, self.count):
            name = names[begin] if end - begin == 1 else f"{names[begin]} … {names[end - 1]}"
            joined[name] = [tensor for part in names[begin:end] for tensor in groups[part]]
        return Partition.of_groups(joined)


def balanced(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Divides a sequence into ``count`` consecutive runs, none empty, so that the largest sum is as small as possible.

    Exact (dynamic programming); of equally good divisions, the one whose first runs are shortest.

    >>> balanced([1, 2, 3, 4], 2)
    [(0, 3), (3, 4)]
    """
    n = len(sizes)
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    # best[i]: the smallest largest sum for sizes[i:] in as many runs as have been allowed so far
    best = [ends[n] - ends[i] for i in range(n)]
    choices: list[list[int]] = []
    for runs in range(2, count + 1):
        cuts, values = [0] * n, best[:]
        for i in range(n - runs + 1):
            options = ((max(ends[j] - ends[i], best[j]), j) for j in range(i + 1, n - runs + 2))
            values[i], cuts[i] = min(options)
        best = values
        choices.append(cuts)
    found, begin = [], 0
    for cuts in reversed(choices):
        found.append((begin, cuts[begin]))
        begin = cuts[begin]
    return [*found, (begin, n)]


def _order(tensors: Mapping[str, TensorInfo], module: nn.Module | None) -> dict[str, Key]:
    """A sort key for every tensor: the model's order of definition, or else numbers and the usual words."""
    state = list(module.state_dict()) if module is not None else []
    if set(state) == set(tensors):
        return {name: ((0, place, ""),) for place, name in enumerate(state)}
    return {name: tuple(_rank(part) for part in name.split(".")) for name in tensors}


def _rank(part: str) -> tuple[int, int, str]:
    where = 2 if _LAST.search(part) else 0 if _FIRST.search(part) else 1
    found = _NUMBERED.match(part)
    return where, int(found[2]) if found else -1, part


def _parts(tensors: Mapping[str, TensorInfo], order: Mapping[str, Key]) -> dict[str, list[str]]:
    """Component → tensors, in the network's order."""
    names = sorted(tensors, key=lambda name: order[name])
    blocks = _blocks(tensors)
    home = {name: next((path for path in reversed(_numbered(name)) if path in blocks), None) for name in names}
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


def _between(name: str, key: Key, sequence: Sequence[str], first: Mapping[str, Key]) -> str:
    """Where a tensor outside of all blocks belongs: stem, head, or the next block."""
    stage = _container(name, sequence)
    said = next((part for part in name.split(".") if _LAST.match(part) or _FIRST.search(part)), "")
    if not stage and _LAST.match(said):
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

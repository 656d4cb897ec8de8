"""Components by what a layer is for: queries, keys, values, projections of the MLP, norms, embeddings, head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import PartitionError
from merging.mixing.blocks import blocks
from merging.plugins.options import option
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn

_NORM = re.compile(r"norm|^bn\d*$|^ln(_|\d|$)", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed|token|^w[tp]e$|^pos|patch|project_in|^conv_proj$", re.IGNORECASE)
_ATTENTION = r"(^|\.)(\w*attn\w*|\w*attention\w*)\.(.*\.)?"
_MLP = r"(^|\.)(mlp\w*|ffn?|feed_?forward|DenseReluDense|experts?(\.\d+)?|shared_experts?)\.(.*\.)?"
_RULES = (
    ("router", r"(^|\.)(router(\.\w+)?|shared_expert_gate)$"),
    ("qkv", r"(^|\.)(qkv(_proj)?|query_key_value|Wqkv|to_qkv)$"),
    ("qkv", _ATTENTION + r"(c_attn|in_proj(_weight|_bias)?)$"),
    ("qkv", _ATTENTION + r"[qv]_bias$"),
    ("gate", _MLP + r"(w1|wi_0)$"),
    ("up", _MLP + r"(w3|wi|wi_1)$"),
    ("down", _MLP + r"(w2|wo|Wo)$"),
    ("kv", r"(^|\.)(kv(_proj)?|to_kv|kv_[ab]_proj\w*)$"),
    ("q", r"(^|\.)(q|q_proj|q_lin|query(_proj)?|wq|to_q|q_[ab]_proj)$"),
    ("k", r"(^|\.)(k|k_proj|k_lin|key(_proj)?|wk|to_k)$"),
    ("v", r"(^|\.)(v|v_proj|v_lin|value(_proj)?|wv|to_v)$"),
    ("o", r"(^|\.)(o|o_proj|out_lin|wo|Wo|to_out(\.0)?)$"),
    ("o", _ATTENTION + r"(dense|c_proj|proj|out_proj)$"),
    ("gate_up", r"(^|\.)(gate_up_proj|gate_and_up_proj|Wi)$"),
    ("gate", r"(^|\.)gate_proj$"),
    ("up", r"(^|\.)(up_proj|c_fc|fc_in|lin1|dense_h_to_4h|linear_?1)$"),
    ("down", r"(^|\.)(down_proj|fc_out|lin2|dense_4h_to_h|linear_?2)$"),
    ("up", r"(^|\.)intermediate\.dense$|" + _MLP + r"0$"),
    ("down", r"(^|\.)output\.dense$|" + _MLP + r"(c_proj|3)$"),
    ("up", r"(^|\.)fc1$"),
    ("down", r"(^|\.)fc2$"),
)
"""Role → how its layer is called inside a block, in order; the first that is found counts."""
_OWN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""What tensors of a layer are called: anything else is a layer's own name (``experts.gate_up_proj``)."""
_ORDER = ("stem", "embeddings", "q", "k", "v", "kv", "qkv", "o", "router", "gate", "up", "gate_up", "down", "norms")


@partitioners.register("part")
@dataclass(frozen=True)
class Part(Partitioner):
    """Divides a transformer by the roles of its layers, each over all of its blocks.

    Roles are ``q``, ``k``, ``v``, ``o`` of attention, ``gate``, ``up``, ``down`` of the MLP, ``norms``, ``embeddings``
    and ``head``; layers that a model joins keep a name of their own (``qkv``, ``gate_up``), and so do the ``router`` of
    a mixture of experts and its ``experts.up`` and so on. Biases are with their weights. Any other layer is named as in
    its block, so that convolutional networks are divided, too.
    """

    summary: ClassVar[str] = "roles over all blocks: q, k, v, o, gate, up, down, norms, embeddings, head"
    paper: ClassVar[str] = "one factor per group of layers: Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = "one λ per role; with depth N: per role and run of blocks, N runs of about equal length"
    limits: ClassVar[str] = (
        "Roles are told by the names of layers, as transformers, timm, torchvision and open_clip have them. A head "
        "that is tied to the embeddings is with these."
    )

    depth: int | None = option(None, "divide each role in the blocks into so many runs, from the first on", low=1)

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a role, or a role and run.

        Raises:
            PartitionError: ``depth`` is larger than the number of blocks; that is named.
        """
        parts = blocks(tensors, module)
        inner = [part for part, names in parts.items() if part not in ("stem", "head") and not _is_layer(part, names)]
        runs = self.depth or 1
        if runs > max(len(inner), 1):
            way_out = f"use {len(inner)} at most" if len(inner) > 1 else "leave it out"
            raise PartitionError(
                f"option 'depth' of 'part' is {runs}, but this model has {len(inner)} repeated blocks; {way_out}"
            )
        groups: dict[tuple[str, int], list[str]] = {}
        for part, names in parts.items():
            run = inner.index(part) * runs // len(inner) + 1 if part in inner and runs > 1 else 0
            mixture = any("expert" in name for name in names)
            place = part if part in inner or part in ("stem", "head") else ""
            for name in names:
                groups.setdefault((_role(name, place, mixture=mixture), run), []).append(name)
        ordered = sorted(groups, key=lambda each: (_rank(each[0]), each))
        return Partition.of_groups({f"{role}.{run}" if run else role: groups[role, run] for role, run in ordered})


def _is_layer(part: str, names: list[str]) -> bool:
    """Whether a part is a single layer: where nothing is repeated, all of them are."""
    return all(part in (name, name.rpartition(".")[0]) for name in names)


def _role(name: str, part: str, *, mixture: bool) -> str:
    """What a tensor is for.

    Args:
        name: the tensor's.
        part: the block that it is in; ``stem`` or ``head``; empty where nothing is repeated.
        mixture: whether that has experts, so that a ``gate`` is a router.
    """
    layer = name.removeprefix(f"{part}.")
    outer, _, last = layer.rpartition(".")
    layer = outer if outer and last in _OWN else layer
    pieces = layer.split(".")
    if any(map(_NORM.search, pieces)):
        return "norms"
    if part == "stem":
        return "embeddings" if any(map(_EMBEDDING.search, name.split("."))) else "stem"
    if part == "head":
        return "head"
    if mixture and pieces[-1] == "gate":
        return "router"
    if not name.startswith(f"{part}.") and re.search(r"embed", layer):  # a decoder's own, after an encoder's blocks
        return "embeddings"
    role = next((role for role, pattern in _RULES if re.search(pattern, layer)), None)
    if role is not None:
        return f"experts.{role}" if re.search(r"(^|\.)experts\.", layer) else role
    return ".".join(piece for piece in pieces if not piece.isdecimal()) or layer


def _rank(role: str) -> int:
    """The place of a role among the others, of which the head is last."""
    if role == "head":
        return len(_ORDER) + 1
    own = role.rpartition(".")[2]
    return _ORDER.index(own) if own in _ORDER else len(_ORDER)

"""The block hierarchy of a CLIP image classifier at three depths (Fassold 2023, §3: C8, C15, C26).

On open_clip's ViT-B/32 without text blocks these give 8, 15 and 26 components, of which 3, 9 and 20 are active:
the text tower's leftovers reach no logit. Other towers have the same hierarchy with other parts: ResNets
(``layer1`` … ``layer4``, ``attnpool``) and timm's models (``trunk.patch_embed``, ``trunk.blocks``, …); C26 then has as
many blocks as the tower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import PartitionError
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn

# The order of the components: that of the published code, which is the order of open_clip's own state dict.
_TEXT_FIRST = ("positional_embedding", "text_projection", "logit_scale")
_VISUAL = ("class_embedding", "positional_embedding", "proj", "conv1", "ln_pre", "transformer", "ln_post")
_RESNET = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "layer1", "layer2", "layer3", "layer4", "attnpool")
_TRUNK = (
    "cls_token",
    "reg_token",
    "pos_embed",
    "patch_embed",
    "stem",
    "norm_pre",
    "blocks",
    "stages",
    "layers",
    "norm",
)
_OTHER = (*_RESNET, *(f"trunk.{part}" for part in _TRUNK), "trunk", "head")
_TEXT_LAST = ("transformer", "token_embedding", "ln_final.weight", "ln_final.bias", "ln_final")
_HEAD = ("classification_head.weight", "classification_head.bias")
_ORDER = (*_TEXT_FIRST, *(f"visual.{part}" for part in (*_VISUAL, *_OTHER)), "visual", *_TEXT_LAST, *_HEAD)
_TEXT = (*_TEXT_FIRST, "token_embedding", "ln_final")


@dataclass(frozen=True)
class _ClipPartitioner(Partitioner):
    """Groups by the leading parts of a tensor's name, taken without the prefix ``model.``."""

    paper: ClassVar[str] = "Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    limits: ClassVar[str] = (
        "For CLIP image classifiers in the layout of model-soups (visual.…, classification_head). The numbers of "
        "components are those of ViT-B/32; other towers have as many as they have parts."
    )
    example_tensors: ClassVar[tuple[str, ...]] = (
        *(f"model.{part}" for part in _TEXT_FIRST),
        *(f"model.visual.{part}" for part in ("class_embedding", "proj", "conv1.weight", "ln_pre.weight")),
        *(f"model.visual.transformer.resblocks.{block}.mlp.c_fc.weight" for block in range(12)),
        *(f"model.{part}" for part in ("token_embedding.weight", "ln_final.weight", "ln_final.bias")),
        *_HEAD,
    )
    """Names that the contract tests divide."""

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a block, in the published order."""
        plain = {tensor: tensor.removeprefix("model.") for tensor in tensors}
        if not any(name.startswith("visual.") for name in plain.values()):
            raise PartitionError(
                f"partitioner '{self.name}' needs a CLIP image tower: no tensor is called 'visual.…' or "
                f"'model.visual.…' (the first is '{next(iter(tensors), 'none at all')}'); try `partitioner=layer`"
            )
        groups: dict[str, list[str]] = {}
        for tensor, name in plain.items():
            groups.setdefault(self._component(name), []).append(tensor)
        ordered = dict(sorted(groups.items(), key=lambda item: _rank(item[0])))
        missing = [part for part in _TEXT if part not in {name.split(".")[0] for name in ordered}]
        notes = [f"no {', '.join(missing)} in these checkpoints: fewer components than published"] if missing else []
        return Partition.of_groups(ordered, notes)

    def _component(self, name: str) -> str:
        raise NotImplementedError


def _rank(component: str) -> tuple[int, tuple[int, ...], str]:
    """Published blocks first come in their order; numbered blocks by number; anything else last, by name."""
    known = next((part for part in _ORDER if component == part or component.startswith(part + ".")), None)
    place = _ORDER.index(known) if known else len(_ORDER)
    numbers = tuple(int(part) for part in component.split(".") if part.isdecimal())
    return place, numbers, "" if known in _TEXT_LAST else component


_BLOCK = re.compile(
    r"visual\.(transformer\.resblocks\.\d+|layer\d+\.\d+|trunk\.(stages|layers)\.\d+\.blocks\.\d+|trunk\.(blocks|layers)\.\d+)"
)
"""Residual blocks, by the names that open_clip's towers give them."""


def _part(name: str) -> str:
    """``visual.ln_post.weight`` → ``visual.ln_post``; a timm trunk's parts lie one level deeper."""
    return ".".join(name.split(".")[: 3 if name.startswith("visual.trunk.") else 2])


@partitioners.register("clip-c8")
@dataclass(frozen=True)
class ClipC8(_ClipPartitioner):
    """Divides a CLIP classifier into the whole image tower, every text leftover, head weight and head bias."""

    summary: ClassVar[str] = "image tower, text leftovers, head weight, head bias (8 components, 3 active)"
    formula: ClassVar[str] = "visual | classification_head.weight | classification_head.bias | every text leftover"

    def _component(self, name: str) -> str:
        return name if name in _HEAD else name.split(".")[0]


@partitioners.register("clip-c15")
@dataclass(frozen=True)
class ClipC15(_ClipPartitioner):
    """Divides a CLIP classifier's image tower into its seven parts, and the rest as clip-c8 does."""

    summary: ClassVar[str] = "the image tower in its seven parts (15 components, 9 active)"

    formula: ClassVar[str] = "visual.P a component for each part P of the image tower; the rest as in clip-c8"

    def _component(self, name: str) -> str:
        return _part(name)


@partitioners.register("clip-c26")
@dataclass(frozen=True)
class ClipC26(_ClipPartitioner):
    """Divides as clip-c15 does, with every residual block of the image transformer a component of its own."""

    summary: ClassVar[str] = "as clip-c15, every residual block of its own (26 components, 20 active)"
    formula: ClassVar[str] = "visual.transformer.resblocks.k a component for each block k; the rest as in clip-c15"

    def _component(self, name: str) -> str:
        return block[0] if (block := _BLOCK.match(name)) else _part(name)

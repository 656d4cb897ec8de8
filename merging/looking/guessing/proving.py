"""Whether an architecture has exactly a checkpoint's tensors: it is built, and every name and shape is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from merging.data.text import reads_language
from merging.errors import MergingError, PoolError
from merging.forward.fitting import check_fits
from merging.forward.head import head_layer
from merging.looking.guessing.building import bare
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.models.spelling import divided, with_arguments
from merging.models.zero_shot import has_text_tower
from merging.storage.pool import ModelPool

SIZED: Mapping[str, str] = {"timm": "img_size", "torchvision": "image_size", "open_clip": "force_image_size"}
"""Library → the argument of its constructors that says the images' size."""
SIDES = (32, 56, 64, 96, 112, 128, 160, 192, 224, 256, 288, 320, 336, 384, 448, 512)
"""Sizes that are tried where no table of positions says one."""
_POSITIONS = re.compile(r"(^|\.)(pos_embed|pos_embedding|positional_embedding|position_embeddings)$")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture that has exactly the checkpoints' tensors.

    Attributes:
        spec: its name, as merge.toml takes it: ``timm:resnet18``.
        why: says how it was found.
        classes: number of its outputs; None: a whole CLIP, whose classes have names only, or a language model.
        layers: text that is the same for two that compute the same from one input, apart from arithmetic in code.
        settings: what the files say of pictures: ``mean``, ``std``, ``size``.
    """

    spec: str
    why: str
    classes: int | None
    layers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> ModelSource:
        """Gives what the name stands for."""
        return model_source(self.spec)


def proven(
    spec: str, first: ModelPool, why: str, settings: Mapping[str, Any] | None = None, *, resized: bool = True
) -> Architecture:
    """The architecture as it is, or built for images of the size that its table of positions says.

    Args:
        spec: its name.
        first: a pool of one model.
        why: says why it may be the one.
        settings: what the files say of pictures.
        resized: whether images may have another size than the architecture's own.

    Raises:
        MergingError: it does not fit, and which tensor is the first that does not.
    """
    source = model_source(spec)
    if source.spec.startswith("open_clip:") and "classification_head.weight" not in first.tensors:
        return _whole_clip(source, first, why, settings or {})
    module, classes = _built(source, first)
    try:
        check_fits(module, first)
    except MergingError:
        side = _side(source, module.state_dict(), first) if resized else None
        if side is None:
            raise
        source, why = with_side(source, side), f"{why}; built for images of {side} × {side} pixels"
        module = bare(lambda: source.module(classes, first.tensors))
        check_fits(module, first)
    layers = f"{type(module).__module__}.{type(module).__qualname__} {module!r}"
    return Architecture(spec=source.spec, why=why, classes=classes, layers=layers, settings=settings or {})


def with_side(source: ModelSource, side: int) -> ModelSource:
    """The same architecture, built for square images of another size in pixels."""
    name, arguments = divided(source.spec)
    return model_source(with_arguments(name, {**arguments, SIZED[name.partition(":")[0]]: side}))


def takes_side(source: ModelSource) -> bool:
    """Whether its constructor may be told the images' size, and was not."""
    argument = SIZED.get(source.spec.partition(":")[0])
    return argument is not None and source.sides is not None and argument not in source.arguments


def _built(source: ModelSource, first: ModelPool) -> tuple[nn.Module, int | None]:
    """The architecture with the head that the checkpoints have, and the number of its outputs.

    Raises:
        MergingError: they have no such head, or it cannot be built.
    """
    if source.spec.startswith("python:"):
        module = source.build(first)
        layer = head_layer(module)
        return module, None if layer is None else getattr(layer[1], "out_features", None)
    if reads_language(source):
        return bare(lambda: source.module(None, first.tensors)), None
    heads = source.heads(first.tensors)
    name = next((name for name in heads if name in first.tensors), None)
    if name is None or heads[name] >= len(first.tensors[name][0]):
        wanted = next(iter(heads), "a head")
        raise PoolError(f"{first.checkpoints[0].path} has no '{wanted}', the head of {source.spec}")
    classes = first.tensors[name][0][heads[name]]
    return bare(lambda: source.module(classes, first.tensors)), classes


def _whole_clip(source: ModelSource, first: ModelPool, why: str, settings: Mapping[str, Any]) -> Architecture:
    """A CLIP with its text tower, which makes a head of any names.

    Raises:
        MergingError: it does not fit, or has no text tower either.
    """
    if not has_text_tower(first.tensors):
        source.build(first)  # says what is missing
    check_fits(source.named(("one", "two")).build(first), first)
    return Architecture(spec=source.spec, why=f"{why}; a whole CLIP", classes=None, settings=settings)


def _side(source: ModelSource, state: Mapping[str, Tensor], first: ModelPool) -> int | None:
    """Side of the images that a checkpoint's table of positions is made for; None: nothing says it."""
    if not takes_side(source) or source.sides is None:
        return None
    for name, tensor in state.items():
        if not _POSITIONS.search(name) or name not in first.tensors:
            continue
        if source.spec.startswith("open_clip:") and "visual" not in name:  # the text tower's
            continue
        return next(_sides(tuple(tensor.shape), first.tensors[name][0], source.sides[0]), None)
    return None


def _sides(default: tuple[int, ...], own: tuple[int, ...], side: int) -> Iterator[int]:
    """Sides of square images with so many positions, where the default has so many at a known side.

    >>> list(_sides((1, 197, 192), (1, 17, 192), 224))
    [64]
    """
    axes = [axis for axis, (a, b) in enumerate(zip(default, own, strict=False)) if a != b]
    if len(default) != len(own) or not axes:
        return
    if len(axes) == 2 and own[axes[0]] == own[axes[1]]:  # a map of positions
        yield side * own[axes[0]] // default[axes[0]]
        return
    for extra in (0, 1, 2, 5, 4):  # tokens besides the patches: class, distillation, registers
        before, after = _root(default[axes[0]] - extra), _root(own[axes[0]] - extra)
        if before and after and side % before == 0:
            yield after * (side // before)
            return


def _root(number: int) -> int | None:
    """The whole square root of a number, None where there is none."""
    root = int(max(number, 0) ** 0.5 + 0.5)
    return root if root > 0 and root * root == number else None

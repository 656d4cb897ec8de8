"""Patch embeddings as matrix products: a convolution whose kernel is its stride looks at every pixel once.

Such a convolution is a product of its weights with the image cut into patches. With three input channels, libraries of
convolutions pad the channels and need several times the product's time. Images that are still uint8 are cut as they
are, and what would standardise them is done to the weights: no float32 copy of a batch is written.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from merging.forward.device import on_device

_MIDDLE = 128
"""Taken off pixels first: −128 to 127 are exact in bf16, and the sums stay small."""
_LOOKS = frozenset({"__get__", "size", "dim", "stride", "is_floating_point", "is_complex"})
"""Functions that tell of a tensor and do not read its values."""


@runtime_checkable
class Affine(Protocol):
    """A task's ``prepare`` that scales and shifts each channel of uint8 images, channels last, and does no more."""

    @property
    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of each channel, float32 of shape ``(C,)``; None: it does something else."""


class PatchProduct(nn.Conv2d):
    """A convolution whose kernel is its stride, computed as a matrix product; its tensors and their names stay.

    The weights are read at every call, so that they may be mixed in place, and gradients reach them. uint8 inputs
    stand for what :attr:`pixels` makes of them.

    Shapes:
        inputs ``(N, C, H, W)``; outputs ``(N, outputs, H // height, W // width)``, channels-last in memory.
    """

    pixels: tuple[Tensor, Tensor] | None = None
    """Scale and shift, by channel, that uint8 inputs stand for; on the weights' device."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiplies patches by the weights."""
        if input.ndim != 4:
            return super().forward(input)
        (height, width), (n, channels, *sides) = self.kernel_size, input.shape
        rows, columns = sides[0] // height, sides[1] // width
        x = input[:, :, : rows * height, : columns * width]
        weight, bias = self.weight, self.bias
        if x.dtype == torch.uint8:
            x, weight, bias = self._of_pixels(x)
        patches = x.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # n, c, rows, height, columns, width
        if x.stride(1) == 1:  # channels-last: whole rows of a patch lie together
            patches, weight = patches.permute(0, 2, 4, 3, 5, 1), weight.permute(0, 2, 3, 1)
        else:
            patches = patches.permute(0, 2, 4, 1, 3, 5)
        shape = (n, rows, columns, channels * height * width)
        if x.is_floating_point():
            flat = patches.reshape(shape)
        else:  # cut and cast in one copy
            flat = torch.empty(patches.shape, dtype=weight.dtype, device=x.device).copy_(patches).view(shape)
        return nn.functional.linear(flat, weight.flatten(1), bias).permute(0, 3, 1, 2)

    def _of_pixels(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels between −128 and 127, and the weights and bias that take them as the others take prepared images."""
        if self.pixels is None:
            raise TypeError("this model takes prepared images, not uint8")
        scale, shift = self.pixels
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        exact = self.weight.to(wide)
        bias = exact.sum((2, 3)) @ (_MIDDLE * scale + shift).to(wide)
        bias = bias if self.bias is None else bias + self.bias
        weight = exact * scale.view(-1, 1, 1).to(wide)
        return (x ^ _MIDDLE).view(torch.int8), weight.to(self.weight.dtype), bias.to(self.weight.dtype)


def is_patched(part: nn.Module) -> bool:
    """Whether a module is a convolution that is a product of patches: kernel and stride are one, without margins."""
    return (
        isinstance(part, nn.Conv2d)
        and type(part) in (nn.Conv2d, PatchProduct)
        and part.kernel_size == part.stride != (1, 1)
        and part.padding in ((0, 0), "valid")
        and part.dilation == (1, 1)
        and part.groups == 1
    )


def use_products(module: nn.Module) -> None:
    """Makes matrix products of a model's patch embeddings, in place; tensors, names and hooks stay as they are."""
    for part in module.modules():
        if is_patched(part):
            part.__class__ = PatchProduct


def takes_pixels(module: nn.Module, images: Tensor, prepare: object) -> bool:
    """Lets a model's patch embedding take images as they are stored, if it is all that reads them.

    What a model does with its input is watched, not declared: where anything but a :class:`PatchProduct` reads it,
    images are prepared first, as for any other model.

    Args:
        module: the model, in evaluation mode, with weights in it.
        images: some stored images, on its device.
        prepare: what the task does to them.

    Returns:
        Whether uint8 images, :func:`pixels_of` what is stored, may be put into the model from now on.
    """
    embeddings = [part for part in module.modules() if isinstance(part, PatchProduct)]
    raw = pixels_of(images)
    with torch.inference_mode(False):  # gradients may go through these later
        said = prepare.affine if isinstance(prepare, Affine) else None
        if raw is None or said is None or not embeddings or len(said[0]) != raw.shape[1]:
            return False
        for part in embeddings:
            part.pixels = (on_device(said[0], raw.device), on_device(said[1], raw.device))
    watch = _Readers(raw)
    hooks = [hook for part in embeddings for hook in watch.hooks(part)]
    try:
        with torch.inference_mode(), watch:
            module(raw)
    except Exception:  # whatever a model raises that takes no uint8
        watch.others = True
    finally:
        for hook in hooks:
            hook.remove()
    fits = watch.entered == 1 and not watch.others
    for part in embeddings:
        part.pixels = part.pixels if fits else None
    return fits


def pixels_of(images: Tensor) -> Tensor | None:
    """Stored images with their channels first, a view; None: they are no uint8 images ``(N, H, W, C)``."""
    return images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 and images.ndim == 4 else None


class _Readers(torch.overrides.TorchFunctionMode):
    """Notes who reads a model's input.

    Args:
        watched: the input.

    Attributes:
        entered: how often a patch embedding was given it.
        others: whether anything else was.
    """

    def __init__(self, watched: Tensor) -> None:
        super().__init__()
        self.entered, self.others = 0, False
        self._watched, self._inside = watched, False

    def hooks(self, part: PatchProduct) -> tuple[RemovableHandle, RemovableHandle]:
        """Has a patch embedding say when it begins and when it ends."""

        def enter(part: nn.Module, given: tuple[Any, ...]) -> None:
            self._inside = bool(given) and given[0] is self._watched
            self.entered += self._inside

        def leave(part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
            self._inside = False

        return part.register_forward_pre_hook(enter), part.register_forward_hook(leave)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        given = torch.utils._pytree.tree_leaves((args, kwargs or {}))
        if not self._inside and func.__name__ not in _LOOKS and any(value is self._watched for value in given):
            self.others = True
        return func(*args, **(kwargs or {}))

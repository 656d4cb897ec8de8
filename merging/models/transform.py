"""A library's own image transform, divided into what is done once and what the device does.

Everything up to the last step on whole numbers is *geometry*: it runs once a picture, its result (uint8) is kept on
disk. What remains is arithmetic by channel, the *normalisation*. A division is never trusted: it is tried on probe
pictures, and a transform that does not come apart stays whole; its float32 result is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from merging.errors import TaskError, raised
from merging.moved import by_position

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, images between 0 and 1."""
PROBES = ((64, 64), (97, 61), (50, 131), (241, 180), (7, 9))
"""Widths and heights of the pictures on which a division is tried: square, landscape, portrait, small."""
CLOSE = 1e-6
"""Largest difference that float32 arithmetic in another order makes, in standardised units."""

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Normalisation:
    """Standardisation of pixels in RGB, ``(x / 255 − mean) / std`` per channel; perhaps handed over as BGR.

    Attributes:
        mean, std: per channel as the model takes them, of images between 0 and 1.
        flipped: whether the model takes the channels in the order BGR.
    """

    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    flipped: bool = False

    def rows(self, pixels: Tensor) -> Tensor:
        """uint8 ``(H, W, 3)`` → float32 ``(3, H, W)``, in the order of torchvision's own arithmetic."""
        planes = pixels.permute(2, 0, 1).flip(0) if self.flipped else pixels.permute(2, 0, 1)
        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        return planes.to(torch.float32).div_(255).sub_(mean).div_(std)


@by_position
@dataclass(frozen=True, eq=False, kw_only=True)
class Transform:
    """Turns one picture into a model's input.

    Attributes:
        name: name of the model, for messages.
        whole: the library's callable: a PIL image in RGB → float ``(3, H, W)``.
        settings: all that decides what it does, with the library's version; JSON-ready.
        geometry: the same without rescaling and normalisation: RGB, uint8 ``(H, W, 3)``; None: nobody knows it.
        proposed: what remains after ``geometry``, as the library's settings say it.
        notes: what the user should know of it, a line each.
    """

    name: str
    whole: Callable[[Image.Image], Tensor]
    settings: Mapping[str, Any]
    geometry: Callable[[Image.Image], Pixels] | None = None
    proposed: Normalisation = Normalisation()
    notes: tuple[str, ...] = ()

    def __call__(self, image: Image.Image) -> Pixels:
        """What is kept of a picture: uint8 ``(H, W, 3)`` where the transform is divided, else float32 ``(3, H, W)``.

        Raises:
            TaskError: the library's transform gives something else than one picture of three channels.
        """
        if self.geometry is not None and self.divided:
            return self.geometry(image)
        return self._checked(self.whole(image)).numpy()

    @functools.cached_property
    def normalisation(self) -> Normalisation | None:
        """Gives what the device does to kept pixels; None where the transform is not divided.

        The settings' own first, to the bit where the arithmetic is torchvision's; else what the probes say.
        """
        if self.geometry is None:
            return None
        try:
            pairs = [(torch.from_numpy(self.geometry(probe)), whole) for probe, whole in self._probed]
        except (TypeError, ValueError):  # no whole numbers come out of it
            return None
        flips = (self.proposed.flipped, not self.proposed.flipped)
        for found in (self.proposed, *(_fitted(pairs, flipped=flipped) for flipped in flips)):
            if found is not None and all(_equal(found.rows(pixels), whole) for pixels, whole in pairs):
                return found
        return None

    @property
    def divided(self) -> bool:
        """Whether geometry and normalisation, one after the other, are the whole."""
        return self.normalisation is not None

    @functools.cached_property
    def sides(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None where that follows the picture's."""
        found = {tuple(whole.shape[1:]) for _, whole in self._probed}
        height, width = next(iter(found))
        return (height, width) if len(found) == 1 else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels that are kept: uint8 where the transform is divided, else float32."""
        return np.dtype(np.uint8 if self.divided else np.float32)

    def kept(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of what is kept of a picture that comes out with these sides."""
        return (height, width, 3) if self.divided else (3, height, width)

    @property
    def key(self) -> Any:
        """Gives what decides the kept pixels, JSON-ready."""
        return [dict(self.settings), self.divided]

    @functools.cached_property
    def _probed(self) -> list[tuple[Image.Image, Tensor]]:
        """Probe pictures of noise, each with what the whole transform makes of it."""
        drawn = np.random.default_rng(0)
        found = []
        for width, height in PROBES:
            probe = Image.fromarray(drawn.integers(0, 256, (height, width, 3), dtype=np.uint8))
            try:
                found.append((probe, self._checked(self.whole(probe))))
            except TaskError:
                raise
            except Exception as error:  # libraries raise whatever their settings provoke
                said = raised(error, whole=True)[:200]
                raise TaskError(
                    f"{self.name}: its preprocessing does not work on a picture of {width} × {height} pixels ({said})"
                ) from None
        return found

    def _checked(self, found: Any) -> Tensor:
        if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[0] != 3:
            shape = f"{list(found.shape)}" if hasattr(found, "shape") else type(found).__name__
            raise TaskError(
                f"{self.name}: its preprocessing gives {shape} for a picture, not three channels of height and width; "
                "prepare the data yourself and name it as python:module:function"
            )
        return found.to(torch.float32).contiguous()


def as_stored(name: str, normalisation: Normalisation) -> Transform:
    """The transform that leaves pictures in the size in which they are stored."""

    def geometry(image: Image.Image) -> Pixels:
        return np.array(image)

    def whole(image: Image.Image) -> Tensor:
        return normalisation.rows(torch.from_numpy(geometry(image)))

    return Transform(name=name, whole=whole, settings={"stored": True}, geometry=geometry, proposed=normalisation)


def refused(name: str, why: str) -> Transform:
    """The transform of a model that takes no pictures: data of another kind may do, so only its use is an error."""

    def whole(image: Image.Image) -> Tensor:
        raise TaskError(why)

    return Transform(name=name, whole=whole, settings={"refused": why})


def whole_numbers(found: Any) -> Pixels:
    """A picture ``(3, H, W)`` with whole numbers of 0 to 255, of any type, as uint8 ``(H, W, 3)``.

    Raises:
        ValueError: the numbers are others.
    """
    values = torch.as_tensor(found)
    if values.ndim != 3 or values.shape[0] != 3:
        raise ValueError(f"shape {list(values.shape)} is no picture")
    if values.dtype != torch.uint8:
        rounded = values.round()
        if not torch.equal(rounded, values) or float(values.min()) < 0 or float(values.max()) > 255:
            raise ValueError("no whole numbers of 0 to 255")
        values = rounded.to(torch.uint8)
    return values.permute(1, 2, 0).contiguous().numpy()


def from_unit(found: Tensor) -> Pixels:
    """A picture ``(3, H, W)`` between 0 and 1, 255ths of a whole number, as uint8 ``(H, W, 3)``."""
    return found.mul(255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _equal(ours: Tensor, whole: Tensor) -> bool:
    if ours.shape != whole.shape:
        return False
    return bool(((ours - whole).abs() <= CLOSE * whole.abs().clamp(min=1)).all())


def _fitted(pairs: list[tuple[Tensor, Tensor]], *, flipped: bool) -> Normalisation | None:
    """The normalisation that two pixels of each channel ask for; None where pixels and inputs differ in shape."""
    mean, std = [], []
    pixels, whole = pairs[0]
    if pixels.shape != (*whole.shape[1:], 3):
        return None
    for channel in range(3):
        before = pixels[..., 2 - channel if flipped else channel].flatten().double() / 255
        after = whole[channel].flatten().double()
        low, high = int(before.argmin()), int(before.argmax())
        rise = float(after[high] - after[low])
        if rise <= 0:
            return None
        std.append(float(before[high] - before[low]) / rise)
        mean.append(float(before[low]) - float(after[low]) * std[-1])
    return Normalisation(tuple(mean), tuple(std), flipped)

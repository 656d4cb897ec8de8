"""Augmentations of whole batches: against torchvision's of single images, parameters and pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from merging.errors import OptionError
from merging.forward.device import on_device
from merging.training import whole_batch as ours
from merging.training.augment import AFFINE, AREA, NAMES, augmentation
from merging.training.whole_batch import whole_batch

SHAPES = [(48, 40, 56, 3), (48, 33, 20)]


def images(shape: tuple[int, ...]) -> Tensor:
    """Noise."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def singly(change: Any, stored: Tensor) -> Tensor:
    """Torchvision's tensors have their channels first."""
    grey = stored.ndim == 2
    found: Tensor = change(stored[None] if grey else stored.permute(2, 0, 1))
    return found[0] if grey else found.permute(1, 2, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_are_those_of_torchvision(shape: tuple[int, ...], device: str) -> None:
    stored, which = images(shape), torch.arange(shape[0]) % 3 == 0
    found = ours.flipped(on_device(stored, device), which).cpu()
    for one, other, flip in zip(found, stored, which, strict=True):
        assert torch.equal(one, singly(functional.horizontal_flip, other) if flip else other)


@pytest.mark.parametrize("shape", SHAPES)
def test_crops_are_those_of_torchvision(shape: tuple[int, ...], device: str) -> None:
    """Up to the last level, which torchvision rounds otherwise on a CPU."""
    stored, (count, height, width) = images(shape), shape[:3]
    torch.manual_seed(0)
    boxes, mirrored = ours.draw_crops(count, height, width), ours.draw_flips(count)
    found = ours.cropped(on_device(stored, device), boxes, mirrored).cpu()
    assert found.shape == stored.shape
    for one, other, (top, left, tall, wide), mirror in zip(found, stored, boxes.tolist(), mirrored, strict=True):

        def change(x: Tensor, box: Any = (top, left, tall, wide), mirror: Any = mirror) -> Tensor:
            cut: Tensor = functional.resized_crop(x, *box, [height, width], antialias=True)
            return functional.horizontal_flip(cut) if mirror else cut

        assert int((one.int() - singly(change, other).int()).abs().max()) <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AFFINE)
def test_affine_maps_are_those_of_torchvision(name: str, shape: tuple[int, ...], device: str) -> None:
    stored, (count, height, width), ranges = images(shape), shape[:3], AFFINE[name]
    draw = torch.Generator().manual_seed(1)
    angle, across, down, scale, shear = torch.rand(5, count, dtype=torch.float64, generator=draw) * 2 - 1
    angle, shear, scale = angle * ranges.degrees, shear * ranges.shear, 1 + scale * (ranges.scale[1] - 1)
    across, down = (across * ranges.translate * width).round(), (down * ranges.translate * height).round()
    found = ours.moved(on_device(stored, device), ours.inverse(angle, across, down, scale, shear)).cpu()
    wrong = 0
    for number, (one, other) in enumerate(zip(found, stored, strict=True)):
        place = [int(across[number]), int(down[number])]
        how = float(angle[number]), place, float(scale[number]), [float(shear[number]), 0.0]
        wrong += int((one != singly(lambda x, how=how: functional.affine(x, *how), other)).sum())
    assert wrong <= 2e-4 * found.numel(), "but for pixels half way between two"


def test_what_a_place_outside_is() -> None:
    """Black, as torchvision and Pillow fill it."""
    white = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    away = ours.inverse(*(torch.tensor([value], dtype=torch.float64) for value in (0, 3, 0, 1, 0)))
    assert ours.moved(white, away)[0, 0].tolist() == [0, 0, 0, 255, 255, 255, 255, 255]


def alike(one: Any, other: Any) -> None:
    """Two samples of one distribution: Kolmogorov and Smirnov's test, at a level that one seed has or not."""
    assert ks_2samp(np.asarray(one, dtype=float), np.asarray(other, dtype=float)).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(40, 56), (60, 20)])
def test_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int) -> None:
    """60 × 20 pixels: most tries do not fit, and the middle is often taken."""
    torch.manual_seed(0)
    theirs, image = v2.RandomResizedCrop((height, width), scale=AREA), [torch.zeros(3, height, width)]
    drawn = [theirs.make_params(image) for _ in range(3000)]
    boxes = ours.draw_crops(3000, height, width).T
    for name, own in zip(("top", "left", "height", "width"), boxes, strict=True):
        alike(own, [params[name] for params in drawn])
    tall, wide = boxes[2:]
    assert bool(((boxes[0] + tall <= height) & (boxes[1] + wide <= width) & (boxes.amin(0) >= 0)).all())


@pytest.mark.parametrize("name", AFFINE)
def test_maps_are_drawn_as_torchvision_draws_them(name: str) -> None:
    torch.manual_seed(0)
    ranges, height, width = AFFINE[name], 50, 90
    both = (ranges.translate, ranges.translate)
    theirs = v2.RandomAffine(ranges.degrees, both, ranges.scale, ranges.shear or None)
    params = [theirs.make_params([torch.zeros(3, height, width)]) for _ in range(3000)]
    one = [torch.tensor([p["angle"] for p in params]), *torch.tensor([p["translate"] for p in params]).T]
    one += [torch.tensor([p["scale"] for p in params]), torch.tensor([p["shear"][0] for p in params])]
    wanted = ours.inverse(*map(torch.Tensor.double, one))
    for own, other in zip(ours.draw_affines(ranges, 3000, height, width).T, wanted.T, strict=True):
        alike(own, other)


def test_half_are_mirrored_and_each_sample_has_its_own() -> None:
    torch.manual_seed(0)
    assert abs(float(ours.draw_flips(10_000).float().mean()) - 0.5) < 0.02
    same = images((1, 24, 24, 3)).expand(64, -1, -1, -1).contiguous()
    for name in NAMES[1:]:
        changed = whole_batch(name)(same)
        found = len(changed.flatten(1).unique(dim=0))
        assert found == 2 if name == "flip" else found > 55, "two may draw one box"


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_seed_decides_on_every_device(name: str, device: str) -> None:
    stored, change = images((16, 24, 24, 3)), whole_batch(name)

    def once(seed: int, where: str) -> Tensor:
        torch.manual_seed(seed)
        return change(on_device(stored, where)).cpu()

    assert torch.equal(once(0, device), once(0, device))
    assert not torch.equal(once(0, device), once(1, device))
    assert float((once(0, device).int() - once(0, "cpu").int()).abs().gt(1).float().mean()) < 2e-4
    with pytest.raises(OptionError, match="for stored images"):
        change(on_device(stored.float(), device))


@pytest.mark.parametrize("name", NAMES[1:])
def test_pictures_look_as_those_of_single_images(name: str) -> None:
    """Means over many draws: one smooth picture, changed by Pillow and by us."""
    line = torch.linspace(0, 1, 32)
    picture = (127 + 120 * torch.sin(4 * line[:, None]) * torch.cos(3 * line + 0.5)).to(torch.uint8)
    many, by_one = picture.expand(1500, -1, -1).contiguous(), augmentation(name)
    assert by_one is not None
    torch.manual_seed(0)
    own, other = whole_batch(name)(many).double(), by_one(many).double()
    near = 5 * math.sqrt(2 / 1500) * other.std(0) + 1
    assert bool(((own.mean(0) - other.mean(0)).abs() < near).all())

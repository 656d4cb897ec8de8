"""A task's training samples, batch by batch: from the CPU, or from a GPU that shall not wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.forward.device import on_device, sent
from merging.forward.feed import Feed
from merging.plugins.task import Split
from merging.training.ahead import Workers
from merging.training.augment import NAMES, augmentation
from merging.training.hyperparameters import HyperParameters
from merging.training.whole_batch import whole_batch


class Samples:
    """Samples that are gathered and augmented on the CPU, image by image, when their batch is asked for.

    Args:
        split: the training data.
        device: the device that batches are wanted on.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self._split, self._device = split, device

    @classmethod
    def on(cls, split: Split, device: str | torch.device, beside: int = 1) -> Samples:
        """Finds the way for a device: on CUDA nothing may wait for the CPU.

        Args:
            split: the training data.
            device: the device that batches are wanted on.
            beside: processes that train side by side, which share the cores.
        """
        place = torch.device(device)
        return DeviceSamples(split, place, beside=beside) if place.type == "cuda" else Samples(split, place)

    def batches(
        self, order: Tensor, size: int, settings: HyperParameters, first: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples as they are stored, augmented, and their labels; what is drawn is drawn when a batch is taken.

        Args:
            order: indices of what is left of an epoch, on the CPU; a remainder of less than a batch is left out.
            size: samples a batch.
            settings: settings of the run: its augmentation and its seed.
            first: number of the first batch, counted over all epochs.
        """
        del first
        change = augmentation(settings.augmentation)
        for chosen in _whole(order, size):
            stored = self._split.tensor[chosen]
            yield change(stored) if change else stored, on_device(self._split.labels[chosen], self._device)

    def close(self) -> None:
        """Ends what was started for it."""


class DeviceSamples(Samples):
    """Samples that lie on a CUDA device, if they take no more than a quarter of what is free there when a run begins.

    Labels do in any case; other inputs are copied through pinned memory while the batch before is worked on. Flips,
    crops and affine maps are made there, a whole batch at once; timm's policies, which are the CPU's, by processes that
    are some batches ahead. Neither waits for the device.

    Args:
        split: the training data.
        device: a CUDA device.
        room: bytes that the inputs may take there, instead of a quarter of what is free: gradients, the optimizer and
            activations need the rest.
        beside: processes that train side by side, which share the cores.
    """

    def __init__(self, split: Split, device: torch.device, room: int | None = None, *, beside: int = 1) -> None:
        super().__init__(split, device)
        if room is None:
            room = torch.cuda.mem_get_info(device)[0] // 4
        self._feed, self._workers = Feed(split, device, room), Workers(beside=beside)

    def batches(
        self, order: Tensor, size: int, settings: HyperParameters, first: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Gives what :meth:`Samples.batches` gives; the draws are others than the CPU's."""
        name, labels = settings.augmentation, self._feed.labels
        there, parts = _whole(sent(order, self._device), size), _whole(order, size)
        if name not in NAMES:
            ahead = self._workers.batches(name, settings.seed, first, self._split.tensor, parts)
            for chosen, images in zip(there, ahead, strict=True):
                yield sent(images, self._device), labels[chosen]
            return
        change = whole_batch(name) if name != "none" else None
        for chosen, stored in zip(there, self._feed.inputs(there if self._feed.resident else parts, size), strict=True):
            yield change(stored) if change else stored, labels[chosen]

    def close(self) -> None:
        """Ends the processes that augment."""
        self._workers.close()


def _whole(order: Tensor, size: int) -> Sequence[Tensor]:
    return torch.split(order[: len(order) // size * size], size)

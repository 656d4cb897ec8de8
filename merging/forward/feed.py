"""A split's samples, batch by batch on the device: kept there where they fit, streamed to it where they do not."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.forward.carried import Carried, leaves, nbytes
from merging.forward.device import on_device, sent
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split


def feed_of(split: Split, device: torch.device | str) -> Feed:
    """The feed of a split: :class:`SequenceFeed` where its samples are sequences."""
    return (SequenceFeed if isinstance(split.inputs, Sequences) else Feed)(split, device)


class Feed:
    """Hands out the samples of one split on a device.

    Args:
        split: the samples, as they are stored (images: uint8).
        device: the device that batches are wanted on.
        room: bytes that the inputs may take there; None: half of what is free on a CUDA device, else no limit.
            Where they need more, batches are copied one by one, the next one while this one is being worked on.
    """

    def __init__(self, split: Split, device: torch.device | str, room: int | None = None) -> None:
        self.device = torch.device(device)
        self.labels = on_device(split.labels, self.device)
        if room is None and self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2
        self.resident = room is None or split.tensor.nbytes <= room
        self._inputs = on_device(split.tensor, self.device) if self.resident else split.tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Feed:
        """Hands out some samples in a row, from where they are: nothing is copied."""
        some = copy.copy(self)
        some.labels, some._inputs = self.labels[start:stop], self._inputs[start:stop]
        return some

    def cuts(self, size: int) -> list[int]:
        """Says where batches begin, and the number of samples; ``size`` is that of :meth:`batches`."""
        return [*range(0, len(self), size), len(self)]

    def room_for(self, first: Carried, size: int) -> int:
        """Bytes that all batches need where the first one is turned into this and none into less."""
        return nbytes(first) * (len(self.cuts(size)) - 1)

    def bytes_of_all(self, first: Carried, size: int) -> int:
        """Bytes of what all batches are turned into, where the first one is turned into this."""
        return nbytes(first) * len(self) // min(size, len(self))

    def take(self, index: Tensor | slice) -> Tensor:
        """Gives some samples' inputs, on the device."""
        if isinstance(index, Tensor):
            index = on_device(index, self._inputs.device)
        return on_device(self._inputs[index], self.device)

    def batches(
        self, size: int, order: Tensor | None = None, *, samples: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, ``size`` samples at a time (the last batch may be smaller).

        Args:
            size: samples a batch.
            order: indices, shape ``(N,)``; default: as they are stored.
            samples: whether ``size`` counts samples, where these are sequences; otherwise it counts tokens.
        """
        del samples
        parts: Sequence[slice | Tensor] = [slice(start, start + size) for start in range(0, len(self), size)]
        if order is not None:
            parts = torch.split(order, size)
        here = parts if self.resident or order is None else torch.split(order.cpu(), size)  # read back once
        for part, x in zip(parts, self.inputs(here, size), strict=True):
            yield x, self.labels[part]

    def inputs(self, parts: Sequence[slice | Tensor], size: int) -> Iterator[Tensor]:
        """The inputs of some parts of the split, none larger than ``size``, one by one."""
        if self.resident:
            return (self.take(part) for part in parts)
        return self._streamed(parts, size)

    def _streamed(self, parts: Sequence[slice | Tensor], size: int) -> Iterator[Tensor]:
        """Copies through two pinned buffers in turns: one fills and travels while the batch before is worked on."""
        cuda = self.device.type == "cuda"
        shape = (min(size, len(self)), *self._inputs.shape[1:])
        buffers = [torch.empty(shape, dtype=self._inputs.dtype, pin_memory=cuda) for _ in range(2)]
        stream = torch.cuda.Stream(self.device) if cuda else None
        arrived: list[torch.cuda.Event | None] = [None, None]

        def send(number: int) -> Tensor:
            turn, part = number % 2, parts[number]
            event = arrived[turn]
            if event is not None:
                event.synchronize()  # this buffer's last content is still on its way
            rows = self._inputs[part]
            buffer = buffers[turn][: len(rows)].copy_(rows)
            if stream is None:
                return buffer.clone()
            with torch.cuda.stream(stream):
                sent = buffer.to(self.device, non_blocking=True)
                arrived[turn] = stream.record_event()
            return sent

        following = send(0)
        for number in range(len(parts)):
            ready = following
            if stream is not None:
                current = torch.cuda.current_stream(self.device)
                current.wait_stream(stream)
                ready.record_stream(current)
            if number + 1 < len(parts):
                following = send(number + 1)
            yield ready


class SequenceFeed(Feed):
    """Hands out sequences, a batch as one tensor (:meth:`merging.plugins.sequences.Sequences.collated`).

    Batches in the order of the split are made once and stay on the device: next to a model, tokens are few.

    Args:
        split: the samples.
        device: the device that batches are wanted on.
        room: bytes that batches may take there; None: half of what is free on a CUDA device, else no limit.
    """

    def __init__(self, split: Split, device: torch.device | str, room: int | None = None) -> None:
        self.device = torch.device(device)
        self.labels = on_device(split.labels, self.device)
        if room is None and self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2
        self._room, self._made = room, dict[tuple[int, int], Tensor]()
        self._sequences = split.sequences
        self._first = 0
        self._counts = dict[tuple[int, int, int], tuple[int, int, int, int]]()

    def part(self, start: int, stop: int) -> SequenceFeed:
        """Hands out some samples in a row; batches that are made already are taken."""
        some = copy.copy(self)
        some.labels, some._sequences = self.labels[start:stop], self._sequences[start:stop]
        some._first = self._first + start
        return some

    def cuts(self, size: int) -> list[int]:
        """Says where batches begin, and the number of samples; ``size`` counts tokens."""
        return self._sequences.cuts(size)

    def room_for(self, first: Carried, size: int) -> int:
        """Bytes that all batches need: as :meth:`bytes_of_all` says, since batches are of many sizes."""
        return self.bytes_of_all(first, size)

    def bytes_of_all(self, first: Carried, size: int) -> int:
        """Bytes of what all batches are turned into, in proportion to their tokens, padding and all.

        What has a row of numbers for each scored token is counted by these: the first texts may score a token each,
        and later ones all that they have.
        """
        place = self._first, len(self), size
        if place not in self._counts:
            borders = list(itertools.pairwise(self.cuts(size)))
            padded, scored = [self._sequences[start:stop].padded for start, stop in borders], self._sequences.scored
            self._counts[place] = padded[0], sum(padded), int(scored[: borders[0][1]].sum()), int(scored.sum())
        padded_first, padded_all, scored_first, scored_all = self._counts[place]
        return sum(
            leaf.shape[1] * leaf.element_size() * scored_all
            if leaf.ndim == 2 and leaf.is_floating_point() and len(leaf) == scored_first
            else leaf.nbytes * padded_all // padded_first
            for leaf in leaves(first)
        )

    def take(self, index: Tensor | slice) -> Tensor:
        """Gives some samples as one batch, on the device."""
        chosen = self._sequences[index.cpu() if isinstance(index, Tensor) else index]
        return sent(chosen.collated(), self.device)

    def batches(
        self, size: int, order: Tensor | None = None, *, samples: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches and labels, so many tokens at a time at the most; one sample at least.

        Args:
            size: tokens a batch, padding and all, or samples.
            order: indices, shape ``(N,)``; default: as they are stored.
            samples: whether ``size`` counts samples.
        """
        if order is None:
            borders = [*range(0, len(self), size), len(self)] if samples else self.cuts(size)
            for start, stop in itertools.pairwise(borders):
                yield self._batch(start, stop), self.labels[start:stop]
            return
        places = order.cpu()
        chosen = self._sequences[places]
        borders = [*range(0, len(chosen), size), len(chosen)] if samples else chosen.cuts(size)
        for start, stop in itertools.pairwise(borders):
            yield sent(chosen[start:stop].collated(), self.device), self.labels[order[start:stop]]

    def _batch(self, start: int, stop: int) -> Tensor:
        place = self._first + start, self._first + stop
        if place in self._made:
            return self._made[place]
        batch = sent(self._sequences[start:stop].collated(), self.device)
        if self._room is None or sum(made.nbytes for made in self._made.values()) + batch.nbytes <= self._room:
            self._made[place] = batch
        return batch

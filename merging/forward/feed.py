"""A split's samples, batch by batch on the device: kept there where they fit, streamed to it where they do not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.forward.device import on_device
from merging.plugins.task import Split


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

    def take(self, index: Tensor | slice) -> Tensor:
        """Gives some samples' inputs, on the device."""
        if isinstance(index, Tensor):
            index = on_device(index, self._inputs.device)
        return on_device(self._inputs[index], self.device)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, ``size`` samples at a time (the last batch may be smaller).

        Args:
            size: samples a batch.
            order: indices, shape ``(N,)``; default: as they are stored.
        """
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

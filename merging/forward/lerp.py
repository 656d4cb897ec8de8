"""Mixes of two flat buffers whose numbers may be stored in 16 bits: made in fp32 a part at a time, rounded once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Numbers that are widened at once: on a CPU two buffers of them stay in its caches."""


class Mixer:
    """Mixes parts of flat buffers, in fp32 whatever they are stored in.

    Mixing is element by element, so that parts give the bits of the whole.

    Args:
        mixing: ``lerp``, or ``sum``, which rounds λ·A and (1 − λ)·C to fp32 before they are added, as the published
            code does.
        size: numbers of the largest part.
        device: the device that holds the buffers.
    """

    def __init__(self, mixing: str, size: int, device: torch.device) -> None:
        self.mixing = mixing
        self._step = max(1, min(AT_ONCE.get(device.type, AT_ONCE["cuda"]), size))
        self._scratch: Tensor | None = None
        self._device = device

    def mix(
        self, home: Tensor, ahead: Tensor, behind: Tensor, factor: float, kept: Iterable[tuple[int, Tensor]] = ()
    ) -> None:
        """Writes ``λ·ahead + (1 − λ)·behind``.

        Args:
            home: the buffer that it is written to, of one dimension, rounded once to its dtype.
            ahead: the end that λ multiplies.
            behind: the end that 1 − λ multiplies.
            factor: λ.
            kept: places of the mix, and buffers that get it unrounded, fp32.
        """
        plain = all(each.dtype == torch.float32 for each in (home, ahead, behind))
        if plain and self.mixing == "lerp":
            torch.lerp(behind, ahead, factor, out=home)
            return
        if self._scratch is None:
            self._scratch = torch.empty((2, self._step), device=self._device)
        kept = list(kept)
        for begin in range(0, len(home), self._step):
            part = slice(begin, min(begin + self._step, len(home)))
            a, c = self._scratch[:, : part.stop - begin]
            a.copy_(ahead[part])
            c.copy_(behind[part])
            lerped = self.mixing == "lerp"
            mixed = torch.lerp(c, a, factor, out=c) if lerped else a.mul_(factor).add_(c.mul_(1.0 - factor))
            home[part].copy_(mixed)
            for place, exact in kept:
                low, high = max(place, part.start), min(place + len(exact), part.stop)
                if low < high:
                    exact[low - place : high - place].copy_(mixed[low - begin : high - begin])

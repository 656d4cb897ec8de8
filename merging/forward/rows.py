"""Models in memory side by side: mixed by a product with their coefficients, and a gradient projected on each of them.

Both read every row once, a product a component, the same on every device. What differs there is how long a sum of one
product is: on other devices than a CPU long components are projected on in pieces, all of them by one batched product,
because a card that makes as many sums as there are rows has nothing to do on most of its processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.forward.live import LiveModel
from merging.values.recipe import Recipe

PIECE = 1 << 14
"""Numbers of one row that are summed by one product where components are cut."""
AT_ONCE = 1 << 26
"""Numbers of all rows in bf16 that are widened at once: 256 MiB in fp32, where memory is short, and few calls."""


def rows_dtype(numbers: int, device: torch.device, memory: int | None = None) -> torch.dtype:
    """The rule by which rows lie in bf16: on a CUDA device where fp32 would take more than half of its memory.

    All of its memory counts, not what happens to be free: two runs of one command learn the same.

    Args:
        numbers: how many there are in all rows.
        device: the device that rows are kept on.
        memory: its bytes; None: it is asked.
    """
    if device.type != "cuda":
        return torch.float32
    if memory is None:
        memory = torch.cuda.mem_get_info(device)[1]
    return torch.bfloat16 if 4 * numbers > memory // 2 else torch.float32


class Rows:
    """Rows as flat buffers, ``(rows, numbers)``, in fp32 or bf16; sums are in fp32, those of pieces in fp64.

    Nothing waits for the device.

    Args:
        live: knows where components lie; its weights are overwritten by :meth:`mix`.
        recipes: linear merges over its partition.
        dtype: what rows are kept in; bf16 ones are widened a part at a time.
        piece: numbers of a component that are projected on by one sum; None: all.
    """

    def __init__(
        self, live: LiveModel, recipes: Sequence[Recipe], dtype: torch.dtype = torch.float32, piece: int | None = None
    ) -> None:
        self._live, self.dtype, self._piece = live, dtype, piece
        self._flat = torch.zeros((len(recipes), live.size), device=live.device, dtype=dtype)
        row = torch.zeros(live.size, device=live.device) if dtype != torch.float32 else None
        for flat, recipe in zip(self._flat, recipes, strict=True):
            live.fill(flat if row is None else row, recipe)
            if row is not None:
                flat.copy_(row)

    def mix(self, table: Tensor) -> None:
        """Writes the mix into the live model's weights; frozen components are the first row's.

        What nothing reads, inert components, keep what they hold.

        Args:
            table: shape ``(rows, components)``, fp32.
        """
        live = self._live
        for column, component in enumerate(live.partition.components):
            if component.inert:
                continue
            if component.frozen:
                part = live.slice_of(column)
                live.weights[part].copy_(self._flat[0, part])
                continue
            for part, rows in self._parts(column):
                torch.mv(rows.T, table[:, column], out=live.weights[part])

    def project(self, slope: Tensor) -> Tensor:
        """Inner products of a flat gradient with every row.

        Returns:
            Shape ``(rows, components)``, fp64, on MPS fp32; zero where nothing is active.
        """
        wide = torch.float32 if slope.device.type == "mps" else torch.float64  # which mps has not
        found = slope.new_zeros((len(self._flat), len(self._live.partition)), dtype=wide)
        for column in self._live.partition.active:
            for part, rows in self._parts(column):
                found[:, column] += self._products(rows, slope[part])
        return found

    def at(self, positions: Tensor) -> Tensor:
        """Some numbers of every row, ``(rows, positions)``, by their place among the live model's weights."""
        return self._flat[:, positions].float()

    def _parts(self, column: int) -> Iterator[tuple[slice, Tensor]]:
        """A component's place and its rows in fp32: at once, or widened part by part."""
        whole = self._live.slice_of(column)
        if self.dtype == torch.float32:
            yield whole, self._flat[:, whole]
            return
        step = max(1, AT_ONCE // len(self._flat))
        for begin in range(whole.start, whole.stop, step):
            part = slice(begin, min(begin + step, whole.stop))
            yield part, self._flat[:, part].float()

    def _products(self, rows: Tensor, slope: Tensor) -> Tensor:
        """Inner products of a vector with each row; of long rows piece by piece."""
        piece = self._piece or len(slope)
        count = len(slope) // max(piece, 1)
        if count < 2:
            return torch.mv(rows, slope)
        cut = count * piece
        pieces = rows[:, :cut].unflatten(1, (count, piece)).transpose(0, 1)  # a view: nothing is copied
        sums = torch.bmm(pieces, slope[:cut].view(count, piece, 1)).squeeze(2)
        found = sums.sum(0, dtype=torch.float32 if slope.device.type == "mps" else torch.float64)
        return found if cut == len(slope) else found + torch.mv(rows[:, cut:], slope[cut:])


def resident(live: LiveModel, recipes: Sequence[Recipe]) -> Rows:
    """Rows in memory, as the device is served best."""
    device = live.device
    piece = None if device.type == "cpu" else PIECE
    return Rows(live, recipes, rows_dtype(len(recipes) * live.size, device), piece)

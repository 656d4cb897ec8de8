"""Models in memory side by side: mixed by a product with their coefficients, and a gradient projected on each of them.

Both read every row once. On a CPU each component is a product of its own, in the order of sums that it always had. On
other devices, where each product costs a launch, rows lie in blocks of one length, none in two components: one batched
product mixes all components, and one projects on all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.forward.live import LiveModel
from merging.values.recipe import Recipe

BLOCK = 4096
"""Numbers of one row in a block."""
AT_ONCE = 1 << 26
"""Numbers of all rows that one product reads: 256 MiB where rows in bf16 are widened for it."""


def rows_dtype(numbers: int, device: torch.device, free: int | None = None) -> torch.dtype:
    """The rule by which rows lie in bf16: on a CUDA device where fp32 would take more than half of its free memory.

    Args:
        numbers: how many there are in all rows.
        device: the device that rows are kept on.
        free: its free bytes; None: it is asked.
    """
    if device.type != "cuda":
        return torch.float32
    free = torch.cuda.mem_get_info(device)[0] if free is None else free
    return torch.bfloat16 if 4 * numbers > free // 2 else torch.float32


class FlatRows:
    """Rows as flat buffers in fp32; each component is one product of a matrix with a vector.

    Args:
        live: knows where components lie; its weights are overwritten by :meth:`mix`.
        recipes: linear merges over its partition.
    """

    def __init__(self, live: LiveModel, recipes: Sequence[Recipe]) -> None:
        self._live, self.dtype = live, torch.float32
        self._flat = torch.zeros((len(recipes), len(live.weights)), device=live.weights.device)
        for flat, recipe in zip(self._flat, recipes, strict=True):
            live.fill(flat, recipe)

    def mix(self, table: Tensor) -> None:
        """Writes the mix into the live model's weights; frozen components are the first row's.

        Args:
            table: shape ``(rows, components)``, fp32.
        """
        live = self._live
        for column, component in enumerate(live.partition.components):
            part = live.slice_of(column)
            if component.frozen:
                live.weights[part].copy_(self._flat[0, part])
            else:
                torch.mv(self._flat[:, part].T, table[:, column], out=live.weights[part])

    def project(self, slope: Tensor) -> Tensor:
        """Inner products of a flat gradient with every row, ``(rows, components)``; zero where nothing is active."""
        found = slope.new_zeros((len(self._flat), len(self._live.partition)))
        for column in self._live.partition.active:
            part = self._live.slice_of(column)
            found[:, column] = torch.mv(self._flat[:, part], slope[part])
        return found.double()

    def at(self, positions: Tensor) -> Tensor:
        """Some numbers of every row, ``(rows, positions)``, by their place among the live model's weights."""
        return self._flat[:, positions]


class BlockRows:
    """Rows in blocks, ``(blocks, rows, block)``, in fp32 or bf16; sums are always in fp32, those of blocks in fp64.

    Args:
        live: knows where components lie; its weights are overwritten by :meth:`mix`.
        recipes: linear merges over its partition.
        dtype: what rows are kept in.
        block: numbers of one row in a block.
    """

    def __init__(
        self, live: LiveModel, recipes: Sequence[Recipe], dtype: torch.dtype = torch.float32, block: int = BLOCK
    ) -> None:
        self._live, self.dtype, device = live, dtype, live.weights.device
        parts = [live.slice_of(column) for column in range(len(live.partition))]
        sizes = [part.stop - part.start for part in parts]
        counts = [-(-size // block) for size in sizes]
        starts = [sum(counts[:column]) for column in range(len(counts))]
        self._blocks = torch.zeros((sum(counts), len(recipes), block), device=device, dtype=dtype)
        self._counts = torch.tensor(counts, device=device)
        self._column = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
        self._padded = torch.zeros((sum(counts), block), device=device)
        flat = self._padded.view(-1)
        self._homes = [flat[first * block : first * block + size] for first, size in zip(starts, sizes, strict=True)]
        self._parts = parts
        frozen = [component.frozen for component in live.partition.components]
        self._frozen = torch.tensor(frozen, device=device)
        self._first = torch.zeros((len(recipes), 1), device=device)
        self._first[0] = 1.0
        self._active = torch.zeros(len(live.partition), device=device, dtype=torch.bool)
        self._active[list(live.partition.active)] = True
        self._step = max(1, AT_ONCE // (len(recipes) * block))
        row = torch.zeros_like(live.weights)
        for number, recipe in enumerate(recipes):
            live.fill(row, recipe)
            self._spread(row)
            self._blocks[:, number].copy_(self._padded)

    def mix(self, table: Tensor) -> None:
        """Writes the mix into the live model's weights; frozen components are the first row's.

        Args:
            table: shape ``(rows, components)``, fp32.
        """
        shares = torch.where(self._frozen, self._first, table).T[self._column].unsqueeze(1)
        for begin in range(0, len(self._blocks), self._step):
            part = slice(begin, begin + self._step)
            torch.bmm(shares[part], self._blocks[part].float(), out=self._padded[part].unsqueeze(1))
        torch._foreach_copy_([self._live.weights[part] for part in self._parts], self._homes)

    def project(self, slope: Tensor) -> Tensor:
        """Inner products of a flat gradient with every row, ``(rows, components)``; zero where nothing is active."""
        self._spread(slope)
        found = slope.new_empty(self._blocks.shape[:2])
        for begin in range(0, len(self._blocks), self._step):
            part = slice(begin, begin + self._step)
            torch.bmm(self._blocks[part].float(), self._padded[part].unsqueeze(2), out=found[part].unsqueeze(2))
        wide = found if found.device.type == "mps" else found.double()  # mps has no float64
        sums = torch.segment_reduce(wide, "sum", lengths=self._counts, axis=0, unsafe=True)
        return torch.where(self._active, sums.T, 0.0)

    def at(self, positions: Tensor) -> Tensor:
        """Some numbers of every row, ``(rows, positions)``, by their place among the live model's weights."""
        places = torch.zeros_like(self._live.weights, dtype=torch.int64)
        flat = torch.arange(self._padded.numel(), device=places.device)
        start = 0
        for part, home in zip(self._parts, self._homes, strict=True):
            places[part] = flat[start : start + len(home)]
            start += -(-len(home) // self._padded.shape[1]) * self._padded.shape[1]
        found = places[positions]
        block, offset = found // self._padded.shape[1], found % self._padded.shape[1]
        return self._blocks[block, :, offset].T.float()

    def _spread(self, flat: Tensor) -> None:
        """Copies a buffer ordered as the weights are into blocks; what fills the last one of a component stays zero."""
        torch._foreach_copy_(self._homes, [flat[part] for part in self._parts])


def resident(live: LiveModel, recipes: Sequence[Recipe]) -> FlatRows | BlockRows:
    """Rows in memory, as the device is served best."""
    device = live.weights.device
    if device.type == "cpu":
        return FlatRows(live, recipes)
    return BlockRows(live, recipes, rows_dtype(len(recipes) * len(live.weights), device))

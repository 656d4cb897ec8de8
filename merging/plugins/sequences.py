"""Rows of tokens of many lengths, as the inputs of a split: what language models are scored on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ABSENT = -1e30
"""The output of a choice that a question does not have: finite, so that it has no share in any softmax or slope."""
HEADER = 4
"""Columns before a batch's tokens: the sample's number in the batch, the slot, the weight's bits, and the outputs."""

Index: TypeAlias = "int | slice | Tensor | NDArray[np.int64]"


@dataclass(frozen=True, eq=False, kw_only=True)
class Sequences:
    """Samples of a language model: documents, each in one row of tokens or more, or questions, a row for each choice.

    A row goes through the model at once. The model's outputs of a sample are sums: of the log-likelihoods of a row's
    scored tokens, times the row's weight, added to the output that the row's slot names. The arrays may be mapped from
    files; parts of it share them.

    Attributes:
        tokens: all rows one after the other, int32 ``(T,)``: the id of a token that is context, and ``~id``, which is
            negative, of one that is scored. A row's first token is never scored.
        starts: begin of each row, and the end of the last, int64 ``(R + 1,)``.
        weights: factor of each row's log-likelihood, float32 ``(R,)``.
        slots: the output that each row adds to, int16 ``(R,)``.
        samples: the first row of each sample, int64 ``(N + 1,)``.
        outputs: outputs of each sample, ``K``.
        padding: id that fills short rows up.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    weights: NDArray[np.float32]
    slots: NDArray[np.int16]
    samples: NDArray[np.int64]
    outputs: int = 1
    padding: int = 0

    def __len__(self) -> int:
        return len(self.samples) - 1

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.samples[-1] - self.samples[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample's longest row, int64 ``(N,)``."""
        first = self.samples[0]
        rows = np.diff(self.starts[first : self.samples[-1] + 1])
        return np.maximum.reduceat(rows, self.samples[:-1] - first).astype(np.int64)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples, and tokens of the longest row."""
        return len(self), int(self.lengths.max(initial=0))

    @property
    def ndim(self) -> int:
        """Two dimensions: samples and tokens."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of a batch."""
        import torch

        return torch.int32

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return 4 * int(self.starts[self.samples[-1]] - self.starts[self.samples[0]])

    def numel(self) -> int:
        """The number of tokens."""
        return self.nbytes // 4

    @property
    def padded(self) -> int:
        """Tokens of all of it as one batch, padding and all."""
        return self.rows * self.shape[1]

    @property
    def scored(self) -> NDArray[np.int64]:
        """Scored tokens of each sample, int64 ``(N,)``."""
        bounds = self.starts[self.samples]
        sums = np.concatenate([[0], np.cumsum(self.tokens[bounds[0] : bounds[-1]] < 0)])
        found: NDArray[np.int64] = np.diff(sums[bounds - bounds[0]]).astype(np.int64)
        return found

    def __getitem__(self, index: Index) -> Sequences:
        """Some samples: of a slice nothing is copied; an int is a split of one."""
        if isinstance(index, slice):
            begin, stop, step = index.indices(len(self))
            if step == 1:
                return self._with(samples=self.samples[begin : max(begin, stop) + 1])
            index = np.arange(begin, stop, step)
        elif isinstance(index, int | np.integer):
            place = int(index) + (len(self) if index < 0 else 0)
            if not 0 <= place < len(self):
                raise IndexError(f"sample {index} of {len(self)}")
            return self[place : place + 1]
        return self._chosen(np.asarray(index))

    def _chosen(self, chosen: NDArray[np.int64]) -> Sequences:
        """Copies some samples, in the order that is wanted."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64, casting="same_kind")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        counts = np.diff(self.samples)[chosen]
        rows = _runs(self.samples[chosen], counts)
        lengths = np.diff(self.starts)[rows]
        return self._with(
            tokens=self.tokens[_runs(self.starts[rows], lengths)],
            starts=_sums(lengths),
            weights=self.weights[rows],
            slots=self.slots[rows],
            samples=_sums(counts),
        )

    def _with(self, **changes: NDArray[np.generic]) -> Sequences:
        from dataclasses import replace

        return replace(self, **changes)  # type: ignore[arg-type]

    def split(self, size: int) -> Iterator[Sequences]:
        """So many samples at a time; the last part may be smaller."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def cuts(self, tokens: int) -> list[int]:
        """Cuts into batches of so many tokens at the most, padding and all; a sample is never divided.

        Args:
            tokens: how many; a sample that is larger is a batch of its own.

        Returns:
            The first sample of each batch, and the number of samples.
        """
        known: dict[int, list[int]] = self.__dict__.setdefault("_borders", {})
        if tokens not in known:
            known[tokens] = self._cut(tokens)
        return known[tokens]

    def _cut(self, tokens: int) -> list[int]:
        rows, longest = np.diff(self.samples).tolist(), self.lengths.tolist()
        borders, held, width = [0], 0, 0
        for place, (count, length) in enumerate(zip(rows, longest, strict=True)):
            wider = max(width, length)
            if place > borders[-1] and (held + count) * wider > tokens:
                borders.append(place)
                held, wider = 0, length
            held, width = held + count, wider
        return [*borders, len(self)] if len(self) else [0]

    def collated(self) -> Tensor:
        """All of it as one batch.

        Returns:
            int32 ``(R, HEADER + L)``: the number of the row's sample, its slot, the bits of its weight (float32), and
            the number of outputs; then its tokens, filled up on the right to the longest row's ``L``.
        """
        import torch

        first, last = int(self.samples[0]), int(self.samples[-1])
        starts, lengths = self.starts[first:last], np.diff(self.starts[first : last + 1])
        width = int(lengths.max(initial=0))
        batch = np.full((last - first, HEADER + width), self.padding, dtype=np.int32)
        batch[:, 0] = np.repeat(np.arange(len(self)), np.diff(self.samples))
        batch[:, 1], batch[:, 3] = self.slots[first:last], self.outputs
        batch[:, 2] = np.ascontiguousarray(self.weights[first:last]).view(np.int32)
        held = np.arange(width) < lengths[:, None]
        batch[:, HEADER:][held] = self.tokens[starts[0] : starts[0] + lengths.sum()] if len(starts) else 0
        return torch.from_numpy(batch)

    def digest_into(self, digest: Any) -> None:
        """Adds all that it is to a digest of hashlib's kind."""
        digest.update(f"sequences {len(self)} {self.outputs} {self.padding}".encode())
        for array in self.arrays().values():
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name, of its own samples alone: what decides it, and what another process needs."""
        first, last = int(self.samples[0]), int(self.samples[-1])
        begin, end = int(self.starts[first]), int(self.starts[last])
        return {
            "tokens": self.tokens[begin:end],
            "starts": self.starts[first : last + 1] - begin,
            "weights": self.weights[first:last],
            "slots": self.slots[first:last],
            "samples": self.samples - first,
        }

    @classmethod
    def joined(cls, parts: Sequence[Sequences]) -> Sequences:
        """The samples of several, one after the other."""
        rows = np.cumsum([0, *(part.rows for part in parts)])
        ends = np.cumsum([0, *(part.numel() for part in parts)])
        arrays = [part.arrays() for part in parts]
        starts = [array["starts"][:-1] + end for array, end in zip(arrays, ends, strict=False)]
        samples = [array["samples"][:-1] + row for array, row in zip(arrays, rows, strict=False)]
        return cls(
            tokens=np.concatenate([array["tokens"] for array in arrays]),
            starts=np.concatenate([*starts, ends[-1:]]).astype(np.int64),
            weights=np.concatenate([array["weights"] for array in arrays]),
            slots=np.concatenate([array["slots"] for array in arrays]),
            samples=np.concatenate([*samples, rows[-1:]]).astype(np.int64),
            outputs=max(part.outputs for part in parts),
            padding=parts[0].padding,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Gives its own samples as tensors, which travel to other processes as files do."""
        import torch

        arrays = {name: torch.from_numpy(np.array(array)) for name, array in self.arrays().items()}
        return arrays | {"outputs": self.outputs, "padding": self.padding}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value if isinstance(value, int) else value.numpy())

    def checked(self) -> Sequences:
        """The same, where its arrays fit together.

        Raises:
            TaskError: they do not, or a row has no token, or a first token that is scored.
        """
        counts = np.diff(self.samples)
        if len(counts) == 0 or counts.min() < 1:
            raise TaskError("a text without a row; each sample needs one at least")
        first, last = int(self.samples[0]), int(self.samples[-1])
        starts, slots = self.starts[first : last + 1], self.slots[first:last]
        if len(starts) != last - first + 1 or len(slots) != last - first or len(self.weights) < last:
            raise TaskError("rows of tokens, their weights, slots and samples do not fit together")
        if np.diff(starts).min() < 1 or starts[0] < 0 or starts[-1] > len(self.tokens):
            raise TaskError("rows of tokens do not fit together; each row needs one token at least")
        if (self.tokens[starts[:-1]] < 0).any():
            raise TaskError("the first token of a row is scored, and nothing comes before it")
        if int(slots.min()) < 0 or int(slots.max()) >= self.outputs:
            raise TaskError(f"a row adds to output {int(slots.max())} of {self.outputs}")
        return self


def in_batches(inputs: Tensor | Sequences, batch: int) -> Iterator[Tensor | Sequences]:
    """Samples in their order, batch by batch.

    Args:
        inputs: the samples.
        batch: samples a batch; of sequences tokens, padding and all.
    """
    if not isinstance(inputs, Sequences):
        return iter(inputs.split(batch))
    return (inputs[start:stop] for start, stop in itertools.pairwise(inputs.cuts(batch)))


def _sums(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where parts of so many begin, and the end."""
    found: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return found


def _runs(begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of runs, each from its begin on, one after the other.

    >>> _runs(np.array([5, 1]), np.array([2, 3])).tolist()
    [5, 6, 1, 2, 3]
    """
    shifts = begins - _sums(counts)[:-1]
    found: NDArray[np.int64] = np.repeat(shifts, counts) + np.arange(int(counts.sum()))
    return found

"""One evaluation in parts: cut where batches begin, made wherever, put together to the bits of the whole.

A part holds what its samples' logits came to, not a score: the score is made once, of all samples in their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.evaluation.answers import Seen
from merging.evaluation.keys import Keys, Trial
from merging.plugins.objective import Objective
from merging.plugins.task import Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.storage.dtypes import dtype_name
from merging.storage.raw import as_tensor, bytes_of
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe, Weights
from merging.values.sums import in_order


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Numbers of some samples as bytes, in any dtype of torch's; truth values are packed, eight a byte.

    Attributes:
        shape: ``(N,)`` or ``(N, k)``.
        dtype: name of the dtype.
        raw: the bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    raw: NDArray[np.uint8]

    @classmethod
    def of(cls, values: Tensor) -> Rows:
        """Packs a tensor of the CPU."""
        packs, raw = values.dtype == torch.bool, bytes_of(values.detach())
        return cls(shape=tuple(values.shape), dtype=dtype_name(values), raw=np.packbits(raw) if packs else raw)

    def tensor(self) -> Tensor:
        """Gives the tensor, a copy."""
        count = int(np.prod(self.shape, dtype=np.int64))
        raw = np.unpackbits(self.raw, count=count) if self.dtype == "bool" else np.array(self.raw)
        return as_tensor(raw, self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """Terms and hits of some samples in a row, and what they cost: a value that may be pickled and sent.

    Attributes:
        start: the first sample.
        stop: the sample after the last.
        terms: the objective's terms, in their own dtype.
        hits: which samples are right; None where none can be.
        nan: samples with a NaN among their logits.
        losses: sums of cross-entropies, batch by batch; none where no loss was asked for.
        seconds: what the part took where it was made.
        share: what it cost, as a share of a whole pass over its own samples; less than 1 where it went on from kept
            activations.
        measuring: passes over the held-out data that BatchNorm statistics took, which each part measures for itself.
    """

    start: int
    stop: int
    terms: Rows
    hits: Rows | None
    nan: int
    losses: tuple[float, ...]
    seconds: float
    share: float
    measuring: float = 0.0

    @classmethod
    def of(cls, seen: Seen, start: int, stop: int, *, seconds: float, share: float, measuring: float) -> Part:
        """Packs what was seen of samples ``start`` to ``stop``."""
        return cls(
            start=start,
            stop=stop,
            terms=Rows.of(seen.terms),
            hits=None if seen.hits is None else Rows.of(seen.hits),
            nan=seen.nan,
            losses=tuple(seen.losses),
            seconds=seconds,
            share=share,
            measuring=measuring,
        )


def joined(parts: Sequence[Part], objective: Objective, task: Task, split: str, *, record: bool = False) -> Outcome:
    """Puts parts of one evaluation together: the outcome that the whole evaluation has, to the bit.

    Its ``seconds`` are those of all parts together, as if one device had made them one after the other, and so are its
    ``passes``: the sum of what the parts cost.

    Args:
        parts: the parts, in any order, every sample in one of them.
        objective: what is maximised.
        task: the data.
        split: name of the split.
        record: keep the terms, unless they are the hits.

    Raises:
        ValueError: a sample is in no part, or in two.
    """
    whole, ordered = task.split(split), sorted(parts, key=lambda part: part.start)
    borders = [0, *(part.stop for part in ordered)]
    if [*(part.start for part in ordered), len(whole)] != borders:
        places = ", ".join(f"{part.start}–{part.stop}" for part in ordered)
        raise ValueError(f"parts {places or 'of nothing'} are not the {len(whole)} samples of {split}")
    hits = [part.hits.tensor() for part in ordered if part.hits is not None]
    seen = Seen(
        terms=torch.cat([part.terms.tensor() for part in ordered]),
        hits=torch.cat(hits) if hits else None,
        nan=sum(part.nan for part in ordered),
        losses=[loss for part in ordered for loss in part.losses],
    )
    exact = sum(Fraction(part.share) * (part.stop - part.start) for part in ordered) / len(whole)
    passes = float(exact) + in_order(part.measuring for part in ordered)  # equal shares: the whole pass's bits
    outcome = seen.outcome(objective, whole, record=record)
    return replace(outcome, seconds=in_order(part.seconds for part in ordered), passes=passes)


def cuts(borders: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """Cuts an evaluation where batches begin, as evenly as these allow.

    >>> cuts([0, 16, 32, 48, 64, 80, 96, 100], 3)
    [(0, 48), (48, 80), (80, 100)]

    Args:
        borders: first sample of each batch, and the number of samples, as :meth:`merging.plugins.task.Split.cuts` says.
        parts: how many parts are wanted, 1 or more; there are no more than batches.

    Returns:
        First sample of each part, and the one after its last.

    Raises:
        ValueError: no samples, or no parts.
    """
    batches = len(borders) - 1
    if batches < 1 or parts < 1:
        raise ValueError(f"{borders[-1]} samples cannot be cut into {parts} parts")
    parts = min(parts, batches)
    each, more = divmod(batches, parts)
    return list(itertools.pairwise(borders[k * each + min(k, more)] for k in range(parts + 1)))


def check_cut(start: int, stop: int, borders: Sequence[int]) -> None:
    """Refuses a part that does not begin and end where batches do: its bits might be others.

    Raises:
        ValueError: it does not.
    """
    if not start < stop or start not in borders or stop not in borders:
        raise ValueError(f"samples {start} to {stop} of {borders[-1]} are no whole batches")


def can_be_cut(keys: Keys, model: Recipe | Weights | Trial) -> bool:
    """Whether an evaluation may be made in parts for no more than it costs whole.

    Not where the objective looks at the model itself, nor where each part would measure BatchNorm statistics first.
    """
    if isinstance(keys.objective, WholeModelObjective):
        return False
    return not (keys.statistics if isinstance(model, Trial) else keys.averages(model))

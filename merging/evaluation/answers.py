"""What a model's logits on a split mean: terms, hits, a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from merging.errors import StrategyError
from merging.plugins.objective import Objective, check_labels, terms_of
from merging.plugins.task import Split, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import WORST, Outcome, top1
from merging.values.sums import in_order


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """Terms and hits of some samples, on the CPU; an outcome is made of those of all samples together.

    Attributes:
        terms: the objective's terms, shape ``(N,)`` or ``(N, k)``.
        hits: which samples are right, bool, shape ``(N,)``; None where none can be.
        nan: samples with a NaN among their logits.
        losses: cross-entropies, summed over each batch; none where the outcome does not say the loss.
    """

    terms: Tensor
    hits: Tensor | None
    nan: int
    losses: Sequence[float]

    def outcome(self, objective: Objective, split: Split, *, record: bool) -> Outcome:
        """Makes the outcome, where these are all samples of a split in its order.

        Its ``seconds`` and ``passes`` keep their defaults.

        Args:
            objective: what is maximised.
            split: the samples.
            record: keep the terms, unless they are the hits.
        """
        score = finite(objective.score(self.terms, split.labels.cpu(), split.groups, split.group_names))
        correct = None if self.hits is None else np.packbits(self.hits.numpy())
        kept = _array(self.terms) if record and not objective.counts_hits else None
        loss = in_order(self.losses) / len(split) if self.losses else None
        if loss is not None and not np.isfinite(loss):
            loss = -WORST
        return Outcome(score=score, samples=len(split), correct=correct, nan=self.nan, terms=kept, loss=loss)


class Answers:
    """Logits of a split, batch by batch, until they are an outcome.

    What is made of a batch stays on its device: the next batch is under way before anything is read from there.

    Args:
        objective: what is maximised.
        task: the data.
        split: name of the split.
        record: keep the terms, unless they are the hits.
        loss: whether the outcome says the mean cross-entropy of the logits, where labels are classes.

    Raises:
        StrategyError: the objective looks at the model itself.
        TaskError: the labels are of a kind that the objective does not take.
    """

    def __init__(
        self,
        objective: Objective | WholeModelObjective,
        task: Task,
        split: str,
        *,
        record: bool = False,
        loss: bool = False,
    ) -> None:
        if isinstance(objective, WholeModelObjective):
            raise StrategyError(f"objective '{objective.name}' looks at whole models, not at logits")
        check_labels(objective, task, (split,))
        self._objective, self._split = objective, task.split(split)
        self._record = record
        self._terms, self._hits, self._blank, self._losses = (list[Tensor]() for _ in range(4))
        self._says_loss = loss

    @property
    def samples(self) -> int:
        """The number of the split's samples."""
        return len(self._split)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the next samples: logits for the split's classes, ``(N, classes)``, and labels, ``(N,)``."""
        self._terms.append(terms_of(self._objective, logits, labels))
        self._blank.append(_blank(logits).sum())
        if self._split.categorical and logits.ndim == 2 and logits.shape[1] > 1:  # a sample can be right or wrong
            self._hits.append(top1(logits, labels))
            if self._says_loss:
                self._losses.append(cross_entropy(logits.float(), labels, reduction="none").double().sum())

    def outcome(self, order: Tensor | None = None) -> Outcome:
        """Makes the outcome of all samples together; its ``seconds`` and ``passes`` keep their defaults.

        Args:
            order: samples in the order in which they were added, shape ``(N,)``; None: the split's own.
        """
        seen = self.seen()
        if order is not None:
            hits = None if seen.hits is None else _placed(seen.hits, order)
            seen = replace(seen, terms=_placed(seen.terms, order), hits=hits)
        return seen.outcome(self._objective, self._split, record=self._record)

    def seen(self) -> Seen:
        """Terms and hits of the samples so far, in the order of their coming; read from the device only now."""
        return Seen(
            terms=torch.cat(self._terms).cpu(),
            hits=torch.cat(self._hits).cpu() if self._hits else None,
            nan=sum(int(count) for count in self._blank),
            losses=[float(each) for each in self._losses],
        )

    def within(self, order: Tensor | None = None) -> tuple[float, float]:
        """The smallest and the largest score that the samples so far leave possible, where terms have bounds.

        Each term stands where it stands in a whole pass, in its own dtype, and a bound where one is missing. A sum of
        floats in a fixed order falls for no larger term, so what :meth:`outcome` will say lies between the two to the
        last bit. Terms that are floats may still be NaN, the worst score: of them no lower end is known.

        Args:
            order: samples in the order in which they are added, shape ``(N,)``; None: the split's own.
        """
        terms, split = torch.cat(self._terms).cpu(), self._split
        places = slice(len(terms)) if order is None else order[: len(terms)].cpu()
        ends = []
        for bound in self._objective.bounds or ():
            whole = torch.full((len(split), *terms.shape[1:]), bound, dtype=terms.dtype)
            whole[places] = terms
            ends.append(finite(self._objective.score(whole, split.labels.cpu(), split.groups, split.group_names)))
        least, most = ends
        return (WORST if terms.is_floating_point() else least), most


def _placed(values: Tensor, order: Tensor) -> Tensor:
    """Values of samples in another order, put back into the split's."""
    placed = torch.empty_like(values)
    placed[order.cpu()] = values
    return placed


def finite(score: float) -> float:
    """An objective's score; NaN and infinity are the worst, so that a search walks away from them."""
    return score if np.isfinite(score) else WORST


def _blank(logits: Tensor) -> Tensor:
    """Samples with a NaN among their logits, bool ``(N,)``."""
    return logits.isnan().flatten(1).any(dim=1) if logits.ndim > 1 else logits.isnan()


def _array(terms: Tensor) -> NDArray[Any]:
    terms = terms.detach().cpu()
    found: NDArray[Any] = (terms.float() if terms.dtype in (torch.bfloat16, torch.float16) else terms).numpy()
    return found

"""What a model's logits on a split mean: terms, hits, a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from merging.errors import StrategyError
from merging.evaluation.threshold import Margins, margin
from merging.plugins.objective import Objective, check_labels, terms_of
from merging.plugins.task import Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import WORST, Outcome, top1


class Answers:
    """Logits of a split, batch by batch in its order, until they are an outcome.

    Args:
        objective: what is maximised.
        task: the data.
        split: name of the split.
        record: keep the terms, unless they are the hits.
        margins: offered those of this model, where they are wanted.
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
        margins: Margins | None = None,
        loss: bool = False,
    ) -> None:
        if isinstance(objective, WholeModelObjective):
            raise StrategyError(f"objective '{objective.name}' looks at whole models, not at logits")
        check_labels(objective, task, (split,))
        self._objective, self._split = objective, task.split(split)
        self._keeps_terms = record and not objective.counts_hits
        self._wanted = margins if margins is not None and margins.wanted else None
        self._terms, self._hits, self._margins, self._blank, self._losses = (list[Tensor]() for _ in range(5))
        self._says_loss = loss

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the next samples: logits for the split's classes, ``(N, classes)``, and labels, ``(N,)``."""
        self._terms.append(terms_of(self._objective, logits, labels).cpu())
        self._blank.append(_blank(logits).sum())
        if self._split.categorical and logits.ndim == 2 and logits.shape[1] > 1:  # a sample can be right or wrong
            self._hits.append(top1(logits, labels).cpu())
            if self._wanted is not None:
                self._margins.append(margin(logits, labels))
            if self._says_loss:
                self._losses.append(cross_entropy(logits.float(), labels, reduction="none").double().sum())

    def outcome(self) -> Outcome:
        """Makes the outcome of all samples together; its ``seconds`` and ``passes`` keep their defaults."""
        terms, split = torch.cat(self._terms), self._split
        score = finite(self._objective.score(terms, split.labels.cpu(), split.groups))
        if self._margins and self._wanted is not None:
            self._wanted.offer(score, torch.cat(self._margins))
        correct = np.packbits(torch.cat(self._hits).numpy()) if self._hits else None
        nan = sum(int(count) for count in self._blank)  # read from the device once the pass has been made
        kept = _array(terms) if self._keeps_terms else None
        loss = sum(float(each) for each in self._losses) / len(split) if self._losses else None
        if loss is not None and not np.isfinite(loss):
            loss = -WORST
        return Outcome(score=score, samples=len(split), correct=correct, nan=nan, terms=kept, loss=loss)


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

"""Whether a score is above a threshold, answered as soon as the samples that are left cannot change it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from merging.plugins.objective import Objective, reduced, terms_of
from merging.plugins.task import Split
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import Decision


class Margins:
    """Margins of the best model so far on the held-out samples: a test visits the smallest first.

    Attributes:
        wanted: whether passes are to keep them; a first test asks for it.
        values: shape ``(N,)``; None before the first pass that has kept them.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.values: Tensor | None = None
        self._score = -math.inf

    def offer(self, score: float, margins: Tensor) -> None:
        """Keeps the margins of a model if it is the best so far."""
        if score > self._score:
            self._score, self.values = score, margins


def can_stop_early(objective: Objective | WholeModelObjective) -> bool:
    """Whether some samples may decide: the score is that of per-sample terms, and these have bounds."""
    return (
        isinstance(objective, Objective)
        and objective.decomposable
        and objective.bounds is not None
        and not objective.asks
    )


def above(threshold: float, objective: Objective, split: Split, passes: Iterable[tuple[Tensor, Tensor]]) -> Decision:
    """Whether the score is above a threshold; stops once the rest cannot change the answer.

    Args:
        threshold: the score that must be exceeded.
        objective: an objective that :func:`can_stop_early` accepts.
        split: the data.
        passes: the model's outputs and labels, batch by batch, every sample once.
    """
    if objective.bounds is None:
        raise ValueError(f"objective '{objective.name}' has no bounds")
    parts: list[Tensor] = []
    seen, n = 0, len(split)
    for outputs, labels in passes:
        parts.append(terms_of(objective, split.project(outputs), labels).cpu())
        seen += len(labels)
        if seen < n:
            least, most = (reduced(objective, _padded(parts, n - seen, bound)) for bound in objective.bounds)
            if least > threshold or most <= threshold:
                break
    return Decision(reduced(objective, _padded(parts, n - seen, objective.bounds[0])) > threshold, seen)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Measures how far each sample's own logit is above the highest other one, shape ``(N,)``; negative: wrong."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return (own[:, 0] - others.amax(1)).float()


def _padded(parts: list[Tensor], rest: int, value: float) -> Tensor:
    known = torch.cat(parts)
    return torch.cat([known.double(), torch.full((rest, *known.shape[1:]), value, dtype=torch.float64)])

"""The objective that is taken where nobody names one: what the data say is right."""

from __future__ import annotations

from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.plugins.objective import Objective
from merging.plugins.task import Task


def usual_objective(task: Task | None) -> Objective:
    """Accuracy; of documents, which have no classes, the log-likelihood of their tokens.

    Args:
        task: the data; None: there are none, and nothing is scored.
    """
    return NegativeLogLikelihood() if task is not None and task.held_out.counts_tokens else Accuracy()

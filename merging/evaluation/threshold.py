"""Whether a score is above a threshold, answered as soon as the samples that are left cannot change it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from merging.evaluation.answers import Answers
from merging.evaluation.bar import Bar
from merging.plugins.objective import Objective
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import Decision


def can_stop_early(objective: Objective | WholeModelObjective) -> bool:
    """Whether some samples may decide: the score is that of per-sample terms, and these have bounds."""
    return (
        isinstance(objective, Objective)
        and objective.decomposable
        and objective.bounds is not None
        and not objective.asks
    )


def above(bar: Bar, answers: Answers, order: Tensor | None, passes: Iterable[tuple[Tensor, Tensor]]) -> Decision:
    """Whether a score clears a bar; stops once the rest cannot change the answer.

    Args:
        bar: what must be cleared.
        answers: takes the answers to a split under an objective that :func:`can_stop_early` accepts.
        order: samples in the order of the passes, shape ``(N,)``; None: the split's own.
        passes: the model's answers for the split's classes and labels, batch by batch, every sample once.
    """
    seen, n = 0, answers.samples
    for logits, labels in passes:
        answers.add(logits, labels)
        seen += len(labels)
        if seen < n:
            within = answers.within(order)
            found = bar.decided(*within)
            if found is not None:
                return Decision(found, seen, within, seen / n)
    return bar.of(answers.outcome(order))

"""What a run says beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.values.outcome import is_score
from merging.values.verdict import ACCURACY

if TYPE_CHECKING:
    from merging.running.session import Session

RELEASE = {f"model_{number}" for number in range(72)}
"""The individual models of model-soups' release; hparam_info.json there calls model_0 the "LP initialization"."""


def shown(score: float, objective: str) -> str:
    """A score in a line of progress: an accuracy in percent, others as they are."""
    if not is_score(score):
        return "NaN"
    return f"{100 * score:.2f} %" if objective == ACCURACY else f"{score:.4g}"


def doubt(session: Session) -> str | None:
    """Says before a search that a model is no better than a guess; None where it is, or nothing is scored."""
    made, evaluator = session.plan, session.evaluator
    if evaluator is None or made.live is None:
        return None
    from merging.evaluation.chance import against_chance  # loads torch

    numerics, stop, progress = evaluator.numerics, evaluator.ledger.interrupted, session.progress
    found = against_chance(made.live, evaluator.task, made.objective, numerics, made.seed, progress, stop)
    if found is not None:
        progress.say(f"warning: {found}")
    return found


def layers(names: Sequence[str]) -> str:
    """How many layers, and the names of the first four."""
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{len(names)} layer{'s' if len(names) > 1 else ''} ({shown})"


def negative_variance(names: Sequence[str]) -> str:
    """What a merged model with such layers does, and the way out."""
    return (
        f"negative variance in {layers([name or 'the model' for name in names])}: a model with it answers NaN; choose "
        "smaller coefficients, or give training data for measuring it again"
    )

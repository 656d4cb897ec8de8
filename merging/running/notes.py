"""What a run says beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator

RELEASE = {f"model_{number}" for number in range(72)}
"""The individual models of model-soups' release; hparam_info.json there calls model_0 the "LP initialization"."""


def doubt(evaluator: Evaluator | None, seed: int, progress: Progress) -> str | None:
    """Says before a search that a model is no better than a guess; None where it is, or nothing is scored."""
    if evaluator is None:
        return None
    from merging.evaluation.chance import against_chance  # loads torch

    found = against_chance(evaluator, seed, progress)
    if found is not None:
        progress.say(f"warning: {found}")
    return found


def layers(names: Sequence[str]) -> str:
    """How many layers, and the names of the first four."""
    return f"{plural(len(names), 'layer')} ({some(names, 4, counted=False)})"


def negative_variance(names: Sequence[str]) -> str:
    """What a merged model with such layers does, and the way out."""
    return (
        f"negative variance in {layers([name or 'the model' for name in names])}: a model with it answers NaN; choose "
        "smaller coefficients, or give training data for measuring it again"
    )

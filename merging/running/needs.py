"""What a strategy needs, and numbers that a run can begin with, checked before any work."""

from __future__ import annotations

from merging.errors import RequirementError
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.storage.pool import ModelPool


def check_numbers(seed: int, budget: int | None, limit: int | None, models: int, ranks: bool) -> None:
    """Refuses numbers with which a run could not even begin.

    Raises:
        RequirementError: one line that says which.
    """
    if seed < 0:
        raise RequirementError(f"`seed` is {seed}; it must be 0 or larger")
    if budget is not None and budget < 1:
        raise RequirementError(f"`budget` is {budget}; a search needs at least 1 evaluation")
    if limit is not None and ranks and limit < models:
        raise RequirementError(f"`max_evaluations` {limit} does not even rank the {models} models; allow {models}")


def ranks_models(strategy: MixStrategy) -> bool:
    """Whether it, or a part of it, scores every single model."""
    return (strategy.ranks and "objective" in strategy.needs) or any(ranks_models(part) for part in strategy.parts())


def check_needs(strategy: MixStrategy, pool: ModelPool, task: Task | None) -> None:
    """Everything a strategy declares, checked before any work."""
    if len(pool) < strategy.fewest():
        raise RequirementError(
            f"strategy '{strategy.name}' needs at least {strategy.fewest()} models, got {len(pool)}: {pool.names[0]}"
        )
    for part in strategy.parts():
        if part.gives == "ensemble":
            raise RequirementError(
                f"strategy '{strategy.name}' works on single models, but its part '{part.name}' gives an ensemble"
            )
    there = {"base": pool.base is not None, "unlabelled": task is not None and task.unlabelled is not None}
    there |= dict.fromkeys(("model", "objective", "gradients", "per_sample_gradients"), task is not None)
    there["train"] = task is not None and task.train is not None
    there["classes"] = task is not None and task.held_out.categorical
    ways = {"base": "`base`", "train": "a task with training data", "unlabelled": "a task with unlabelled data"}
    for need in sorted(strategy.requires()):
        if need == "classes" and task is not None and not there[need]:
            raise RequirementError(
                f"strategy '{strategy.name}' works with probabilities of classes, but the held-out labels are numbers; "
                "take one that scores or averages alone, such as greedy, manifoldmix or uniform (an ensemble: "
                "average=logits)"
            )
        if not there[need]:
            raise RequirementError(f"strategy '{strategy.name}' needs {need}; give {ways.get(need, '`task`')}")

"""What a strategy needs, and numbers that a run can begin with, checked before any work."""

from __future__ import annotations

from merging.errors import RequirementError, unknown
from merging.plugins.searched import planned_points, sought
from merging.plugins.sequences import Sequences
from merging.plugins.strategy import NEEDS, SCORED, MixStrategy, required
from merging.plugins.task import Split, Task
from merging.plugins.user_code import named, running
from merging.running.settings import Search
from merging.storage.pool import ModelPool
from merging.values.wording import some

OFFERED = {
    "scores": ("model", "objective"),
    "search": ("objective",),
    "slopes": ("gradients", "per_sample_gradients"),
}
"""A part of what a strategy is given → the entries of ``needs`` with which it is there; one of them is enough."""


def check_declared(strategy: MixStrategy, part: str) -> None:
    """Refuses a part of the problem that a strategy uses without asking for it.

    Args:
        strategy: the strategy that uses it. What its own parts require (``wise-ft``'s inner strategy) counts as its
            own.
        part: ``scores``, ``search`` or ``slopes``.

    Raises:
        RequirementError: none of the entries in ``OFFERED`` is required; one line that says which to add.
    """
    if not strategy.requires() & set(OFFERED[part]):
        who, entries = named("strategy", strategy), " or ".join(f'"{entry}"' for entry in OFFERED[part])
        raise RequirementError(f"{who} uses problem.{part}, which its needs do not ask for; add {entries} to needs")


def check_limit(limit: int | None, models: int) -> None:
    """Refuses a number of evaluations after which not even the single models have a score.

    Raises:
        RequirementError: it is smaller than their number.
    """
    if limit is not None and limit < models:
        raise RequirementError(f"`max_evaluations` {limit} does not even rank the {models} models; allow {models}")


def ranks_models(strategy: MixStrategy) -> bool:
    """Whether it, or a part of it, scores every single model."""
    return (strategy.ranks and "objective" in strategy.needs) or any(ranks_models(part) for part in strategy.parts())


def planned_evaluations(strategy: MixStrategy, search: Search, models: int, components: int) -> int:
    """About how many evaluations a run will compute; follows from its settings alone, so that it can be written down.

    One for each model, and where each may be searched for, a tenth of the points that a search asks for: the others
    are repeats (of 2,177 points of a traced run 174 were computed).

    Args:
        strategy: its option ``budget``, or ``budget_per_variable``, says how many points a search asks for.
        search: ``budget`` takes the place of that; ``max_evaluations`` is the most that there can be.
        models: the pool's.
        components: the partition's.
    """

    def points(part: MixStrategy) -> int:
        own, numbers = part.options(), planned_points(part, models, components)
        asked = search.budget or numbers or own.get("budget") or (own.get("budget_per_variable") or 0) * components
        searches = numbers or "budget" in own
        return max([asked if searches else 1, *(points(inner) for inner in part.parts())])

    planned = models * max(1, points(strategy) // 10)
    return planned if search.max_evaluations is None else min(planned, search.max_evaluations)


def _check_on_texts(strategy: MixStrategy, needs: frozenset[str], split: Split) -> None:
    """Refuses what makes no sense of texts: gradients a sample, averages of likelihoods, classes of documents.

    Raises:
        RequirementError: the strategy needs one of these.
    """
    who = f"strategy '{strategy.name}'"
    way = "take one that scores or averages alone, such as greedy, manifoldmix or uniform"
    if "per_sample_gradients" in needs and not split.categorical:
        raise RequirementError(
            f"{who} takes gradients of the probabilities of choices, and the held-out texts have none; {way}"
        )
    if split.categorical:
        return
    if strategy.gives == "ensemble":
        raise RequirementError(
            f"{who} averages the outputs of models, and those of documents are log-likelihoods, which are no "
            f"probabilities of classes; {way}"
        )
    if "classes" in needs:
        raise RequirementError(f"{who} works with probabilities of classes, and the held-out samples are texts; {way}")
    if "likelihood" in needs and not split.counts_tokens:
        raise RequirementError(
            f"{who} minimises one loss, and the held-out data are documents and questions; hold out one kind of them"
        )


def check_needs(strategy: MixStrategy, pool: ModelPool, task: Task | None) -> None:
    """Everything a strategy declares, checked before any work.

    Raises:
        StrategyError: it declares what cannot be.
        UnknownNameError: it needs what nobody knows.
        RequirementError: something that it needs is not there.
    """
    who = named("strategy", strategy)
    needs = required(strategy)
    with running(who, strategy):
        fewest = strategy.fewest()
    for need in sorted(needs - NEEDS):
        raise unknown(f"need of {who}:", need, NEEDS)
    if len(pool) < fewest:
        raise RequirementError(f"{who} needs at least {fewest} models, got {len(pool)}: {pool.names[0]}")
    for part in strategy.parts():
        if part.gives == "ensemble":
            raise RequirementError(
                f"strategy '{strategy.name}' works on single models, but its part '{part.name}' gives an ensemble"
            )
    there = {"base": pool.base is not None, "unlabelled": task is not None and task.unlabelled is not None}
    there |= dict.fromkeys(("model", "objective", "gradients", "per_sample_gradients"), task is not None)
    there["train"] = task is not None and task.train is not None
    there["classes"] = task is not None and task.held_out.categorical
    there["likelihood"] = task is not None and (task.held_out.categorical or task.held_out.counts_tokens)
    if task is not None and isinstance(task.held_out.inputs, Sequences):
        _check_on_texts(strategy, needs, task.held_out)
    ways = {"base": "`base`", "train": "a task with training data", "unlabelled": "a task with unlabelled data"}
    for need in sorted(needs):
        if need in ("classes", "likelihood") and task is not None and not there[need]:
            raise RequirementError(
                f"strategy '{strategy.name}' works with probabilities of classes, but the held-out labels are numbers; "
                "take one that scores or averages alone, such as greedy, manifoldmix or uniform (an ensemble: "
                "average=logits)"
            )
        if not there[need]:
            way = ways.get(need, "`task` (for models and data in a folder, merge init writes it)")
            wanted = sought(strategy) if need in SCORED else []
            purpose = f" to search for {some(wanted, 4)}" if wanted else ""
            raise RequirementError(f"strategy '{strategy.name}' needs {need}{purpose}; give {way}")

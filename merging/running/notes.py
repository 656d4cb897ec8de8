"""What a run says beside its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from merging.plugins.objective import Objective
from merging.plugins.progress import Progress
from merging.plugins.task import Task
from merging.running.found import Found
from merging.running.plan import Plan
from merging.values.outcome import unscored
from merging.values.report import scored
from merging.values.wording import of_each, plural, some

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.running.session import Session

RELEASE = {f"model_{number}" for number in range(72)}
"""The individual models of model-soups' release; hparam_info.json there calls model_0 the "LP initialization"."""


def doubt(session: Session) -> str | None:
    """Says before a search that a model is no better than a guess; None where it is, or nothing is scored."""
    evaluator = session.evaluator
    return doubt_of(session.plan, session.progress, evaluator.ledger.interrupted) if evaluator is not None else None


def doubt_of(made: Plan, progress: Progress, stop: Callable[[], bool]) -> str | None:
    """Says the same of a plan; the progress is told as well.

    Args:
        made: the plan.
        progress: told what is scored, and the warning.
        stop: whether to end.
    """
    if made.task is None or made.live is None or made.numerics is None:
        return None
    from merging.evaluation.chance import against_chance  # loads torch

    seed = made.settings.search.seed
    found = against_chance(made.live, made.task, made.objective, made.numerics, seed, progress, stop)
    if found is not None:
        progress.say(f"warning: {found}")
    return found


def layers(names: Sequence[str]) -> str:
    """Counts layers in words, and names the first four."""
    return f"{plural(len(names), 'layer')} ({some(names, 4, counted=False)})"


def negative_variance(names: Sequence[str]) -> str:
    """Warns that a model with such layers answers NaN, and says the way out."""
    return (
        f"negative variance in {layers([name or 'the model' for name in names])}: a model with it answers NaN; "
        "leave such models out, or give training data for measuring it again"
    )


def notes(
    made: Plan, found: Found, evaluator: Evaluator | None, ingredients: Sequence[str], negative: Sequence[str]
) -> tuple[str, ...]:
    """All that a run says beside its numbers, in the order in which it is shown.

    Args:
        made: its plan.
        found: what it has found.
        evaluator: its door; None where nothing was scored.
        ingredients: names of the models in the merge that is saved.
        negative: its layers whose running variance is negative somewhere.
    """
    certifying = made.task is not None and made.task.certify is not None
    return (
        *([found.doubt] if found.doubt is not None else []),
        *([negative_variance(negative)] if negative else []),
        *_of_scores(made, found),
        *_of_parts(made, found),
        *(_of_failures(evaluator.ledger.failures) if evaluator is not None else []),
        *_of_searches(made, found),
        *made.partition.notes,
        *made.notes,
        *_of_models(made),
        *(_of_batch_norm(made, evaluator) if len(ingredients) > 1 else []),
        *(_of_data(made.task, made) if made.task is not None else []),
        *(
            ["not certified: the run ended before, or there was no merge to compare with a single model"]
            if certifying and found.certificate is None
            else []
        ),
    )


def _of_scores(made: Plan, found: Found) -> list[str]:
    """Scores that are none, or that the scores of record contradict, and rows that are not at their end."""
    said = []
    for name, own in found.merges.items():
        outcomes = {split: seen[0] for split, seen in found.seen(name).items()}
        blank = unscored(outcomes, made.objective.name)
        which = f" ({own.merge.names[0]})" if name == "best" else ""
        said += [f"{own.label}{which}: {blank}"] if blank else []
    said += found.remarks
    if found.cut is not None and found.cut in found.merges:
        said.append(f"{found.merges[found.cut].label} did not come to its end: its row is its best so far")
    return said


def _of_parts(made: Plan, found: Found) -> list[str]:
    """What the terms of a weighted sum score, set by set: the best single model's, and the merge's."""
    shown = [name for name in dict.fromkeys(("best", found.saved)) if name in found.merges]
    if made.task is None or not isinstance(made.objective, Objective) or not made.objective.inside:
        return []
    import torch

    said, labels = [], " → ".join(found.merges[name].label for name in shown)
    held_out = made.task.held_out.group_names
    for split in dict.fromkeys(split for _, split in found.outcomes):
        told = dict[str, list[str]]()
        for name in shown:
            outcome = found.outcomes.get((name, split))
            if outcome is None or outcome.terms is None:
                continue
            for part, measure, score in made.objective.details(torch.from_numpy(outcome.terms), made.task.split(split)):
                told.setdefault(part, []).append(scored(score, measure))
        parts = ", ".join(f"{part} {' → '.join(scores)}" for part, scores in told.items())
        parts = parts.replace("→ perplexity ", "→ ")
        apart = bool(held_out) and not set(held_out) & set(made.task.split(split).group_names)
        whole = f" (it has none of the parts {', '.join(held_out)}: each term scores all that it can)" if apart else ""
        said += [f"{split} by its terms{whole}, {labels}: {parts}"] if parts else []
    return said


def _of_failures(reasons: Sequence[str]) -> list[str]:
    """Evaluations that count as the worst score because whoever was asked for them died."""
    if not reasons:
        return []
    have = "has no result and counts" if len(reasons) == 1 else "have no result and count"
    count = plural(len(reasons), "evaluation")
    return [f"{count} {have} as the worst score ({reasons[0]}): another run may find another merge"]


def _of_searches(made: Plan, found: Found) -> list[str]:
    """Numbers that were searched for, with what they score and what their search began with."""
    said = []
    for facts in found.decisions:
        if not isinstance(facts.get("searched"), Mapping):
            continue  # a strategy's own decision
        values = {name: value if isinstance(value, list) else [value] for name, value in facts["searched"].items()}
        numbers = " and ".join(f"{name} = {some([str(each) for each in value], 6)}" for name, value in values.items())
        score, start = (scored(facts[key], made.measure) for key in ("score", "start"))
        points = plural(facts["points"], "point")
        said.append(f"{facts['strategy']}: {numbers}, by a search of {points}: {score} held-out, {start} at its start")
    return said


def _of_models(made: Plan) -> list[str]:
    """What is odd about the checkpoints."""
    found = of_each({checkpoint.name: checkpoint.notes for checkpoint in made.pool.checkpoints}, "checkpoint")
    found += [f"{', '.join(group)} are the same weights" for group in made.pool.duplicates]
    if made.task is not None:
        for name, differ in made.pool.untuned.items():
            found.append(
                f"{name} keeps the base's weights but for {differ} of {len(made.pool.mixable)} tensors: an "
                "initialisation or a linear probe, not a fine-tuned model"
            )
    if set(made.pool.names) == RELEASE:
        found.append("model_0 of the model-soups release is the linear-probe initialisation, not a fine-tuned model")
    return found


def _of_batch_norm(made: Plan, evaluator: Evaluator | None) -> list[str]:
    """Which BatchNorm statistics of an average were measured again, and which were averaged."""
    norms = [name.removesuffix(".running_mean") for name in made.pool.tensors if name.endswith(".running_mean")]
    measured = evaluator.keys.statistics if evaluator is not None else frozenset[str]()
    fresh = [name for name in norms if f"{name}.running_mean" in measured]
    rest = [name for name in norms if name not in fresh]
    calibration = evaluator.keys.calibration if evaluator is not None else None
    found = []
    if fresh and calibration is not None:
        found.append(
            f"BatchNorm statistics of {layers(fresh)} were measured again on {calibration.samples:,} "
            f"{'training' if calibration.split == 'train' else calibration.split} samples"
        )
    if rest:
        data = made.task is not None and made.task.calibrates is not None
        way = "" if data else "; give the task training data (train), or unlabelled, for that"
        found.append(
            f"BatchNorm statistics of {layers(rest)} were averaged, not measured again on data: scores may suffer{way}"
        )
    return found


def _of_data(task: Task, made: Plan) -> list[str]:
    """Samples that stand in two sets, and numbers of the passes."""
    from merging.running.leaks import leaks  # loads torch

    found = [*leaks(task, made.live.module if made.live is not None else None)]
    if made.numerics is not None and made.numerics.remark is not None:
        found.append(made.numerics.remark)
    return found

"""The scores that a run is going to make, and those of them that earlier commands know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from merging.evaluation.remembered import Remembered
from merging.plugins.objective import Objective
from merging.plugins.task import HELD_OUT
from merging.running.needs import ranks_models
from merging.running.rehearsal import Rehearsal
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """The scores of a run, and those of single models and of their average that need no pass.

    What else is scored depends on outcomes, so nobody can look it up before.

    Attributes:
        scores: all that the run makes.
        known: number of scores that were measured before.
        evaluations: known scores that are evaluations of the search.
        averages: known evaluations of averages.
        samples: samples of the known scores that are no evaluations.
    """

    scores: int
    known: int
    evaluations: int
    averages: int
    samples: int


def foreseen(rehearsal: Rehearsal) -> Foreseen:
    """Counts the scores of a run that was rehearsed, and looks which of them are known.

    Args:
        rehearsal: what the run asks for.
    """
    evaluator, memory = rehearsal.evaluator, rehearsal.remembered
    made, task = rehearsal.session.plan, evaluator.task
    singles, average, open_merges = _foreseeable(rehearsal)
    known = {evaluator.keys.evaluation(each): each for each in (*singles, *average) if evaluator.has(each)}
    searched = [each for each in known.values() if memory is not None and memory.knows(each, HELD_OUT)]
    sure, others = dict[str, tuple[Recipe, str]](), 0
    for merges, count, split in _of_record(rehearsal, singles, average, open_merges):
        sure |= {evaluator.keys.evaluation(each, split, record=True): (each, split) for each in merges}
        others += count
    recorded = [split for each, split in sure.values() if memory is not None and memory.knows(each, split, record=True)]
    certified = 2 if made.task is not None and made.task.certify is not None else 0
    return Foreseen(
        scores=rehearsal.meter.evaluations + len(sure) + others + certified,
        known=len(searched) + len(recorded),
        evaluations=len(searched),
        averages=sum(len(each.names) > 1 for each in searched),
        samples=sum(len(task.split(split)) for split in recorded),
    )


def _foreseeable(rehearsal: Rehearsal) -> tuple[list[Recipe], list[Recipe], int]:
    """The pool's models; their average, where the run makes it; the number of the other merges, best model excluded."""
    made, names = rehearsal.session.plan, [strategy.name for strategy in rehearsal.session.strategies]
    singles = [Recipe.single(row, made.partition) for row in made.pool.ingredients]
    average = [Recipe.mean(made.pool.ingredients, made.partition)] if "uniform" in names else []
    return singles, average, sum(name not in ("best", "uniform") for name in names)


def _of_record(
    rehearsal: Rehearsal, singles: Sequence[Recipe], average: Sequence[Recipe], others: int
) -> Iterator[tuple[Sequence[Recipe], int, str]]:
    """Models that are scored for the record, how many more merges beside them, and on which set."""
    evaluator, made = rehearsal.evaluator, rehearsal.session.plan
    rules, objective = made.settings.rules, evaluator.objective
    best = any(strategy.name == "best" for strategy in rehearsal.session.strategies)
    one = _best(rehearsal.remembered, singles, record=not evaluator.exact) if best else []
    unknown = best and not one
    whole_pool = len(singles) > 1 and rules.tests and rules.pool_tests
    if not evaluator.exact:
        yield [*singles, *average], others, HELD_OUT
    elif isinstance(objective, Objective) and not objective.counts_hits:
        yield [*one, *average], others + unknown, HELD_OUT
    if evaluator.exact and whole_pool and not best and not ranks_models(made.strategy):
        yield singles, 0, HELD_OUT
    for split in evaluator.task.tests if rules.tests else ():
        yield ([*singles, *average], others, split) if whole_pool else ([*one, *average], others + unknown, split)


def _best(memory: Remembered | None, singles: Sequence[Recipe], *, record: bool) -> list[Recipe]:
    """The best single model, where the scores of all of them are known; the first of equals."""
    outcomes = list[Outcome]()
    for single in singles:
        outcome = memory.found(single, HELD_OUT, record=record) if memory is not None else None
        if outcome is None:
            return []
        outcomes.append(outcome)
    return [max(zip(singles, outcomes, strict=True), key=lambda each: each[1].score)[0]]

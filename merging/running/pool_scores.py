"""The models of the pool, each alone: scored on the test sets at the end of a run, and ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merging.plugins.task import HELD_OUT
from merging.running.found import Found
from merging.running.plan import Plan
from merging.running.session import Session
from merging.storage.training_beside import trained_with
from merging.values.leaderboard import Single, differing, ranked, with_soups
from merging.values.recipe import Recipe
from merging.values.wording import plural

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.values.outcome import Outcome


def score_pool(session: Session, found: Found) -> None:
    """Scores every model of the pool on the held-out data and every test set; what is known is not made again.

    Outcomes of record, journalled, and counted in no budget. One model alone needs no ranking.

    Raises:
        Stopped: the run was interrupted.
    """
    from merging.evaluation.steps import Steps  # loads torch

    made, evaluator = session.plan, session.evaluator
    rules = made.settings.rules
    if evaluator is None or made.task is None or len(made.pool) < 2 or not (rules.tests and rules.pool_tests):
        return
    what = f"scoring the {plural(len(made.pool), 'model')} of the pool on the test sets"
    what += " (`pool_tests=False` leaves this out)"
    recipes, sets = [Recipe.single(row, made.partition) for row in made.pool.ingredients], (HELD_OUT, *made.task.tests)
    steps = Steps(evaluator, session.progress, what, recipes, sets, record=True)
    evaluator.foresee([(recipe, name) for recipe in recipes for name in sets], record=True)
    for ingredient, recipe in zip(made.pool.ingredients, recipes, strict=True):
        for name in sets:
            known = _seen(evaluator, recipe) if name == HELD_OUT else None
            found.singles[ingredient.name, name] = known or evaluator.record(recipe, name)
            steps.done()


def known_of_pool(session: Session, found: Found) -> None:
    """Takes the held-out scores that are known of the pool's models, where nobody asked for more; nothing is made."""
    made, evaluator = session.plan, session.evaluator
    if evaluator is None or len(made.pool) < 2:
        return
    for ingredient in made.pool.ingredients:
        known = _seen(evaluator, Recipe.single(ingredient, made.partition))
        if known is not None:
            found.singles.setdefault((ingredient.name, HELD_OUT), known)


def best_of_pool(session: Session, found: Found) -> None:
    """Names the best single model of a run whose steps have ranked none, where every model of the pool was scored."""
    singles = {name: found.singles.get((name, HELD_OUT)) for name in session.plan.pool.names}
    known = [(name, outcome) for name, outcome in singles.items() if outcome is not None]
    if found.single is None and known and len(known) == len(singles):
        found.single = max(known, key=lambda each: each[1].score)  # the first of equals


def leaderboard(made: Plan, found: Found) -> tuple[Single, ...]:
    """The models of the pool, best held-out score first; none where no model was scored alone.

    Args:
        made: the run's plan.
        found: what it has found.
    """
    if not found.singles:
        return ()
    task, pool = made.task, made.pool
    trained = differing({checkpoint.name: trained_with(checkpoint) for checkpoint in pool.checkpoints})
    singles = []
    for name in pool.names:
        scores = {split: outcome.score for (model, split), outcome in found.singles.items() if model == name}
        shifts = task.shifts if task is not None else ()
        singles.append(Single.of(name, scores, held_out=HELD_OUT, shifts=shifts, trained=trained[name]))
    soups = {name: found.merges[name].merge.names for name in found.scored if name != "best"}
    return ranked(with_soups(singles, soups))


def _seen(evaluator: Evaluator, recipe: Recipe) -> Outcome | None:
    """A model's held-out outcome, where the run has made one whose score is that of record."""
    keys, known = evaluator.keys, evaluator.ledger.known
    searched = known(keys.evaluation(recipe)) if evaluator.exact else None
    return searched or known(keys.evaluation(recipe, HELD_OUT, record=True))

"""Scores of record of a run's merges: on the held-out data, on samples that selected nothing, on the test sets."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress, tell_precision
from merging.plugins.task import CERTIFY, HELD_OUT
from merging.running.found import Found
from merging.running.plan import Plan
from merging.running.rescoring import Rescoring
from merging.values.recipe import Recipe
from merging.values.report import Certificate, scored

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log


class Scores:
    """Scores of record of one run's merges, by which the result is chosen, certified and shown.

    Args:
        made: the run's plan.
        evaluator: the run's door to its data.
        journal: keeps the certificate.
        progress: told what is scored.
        found: the run's results so far, which are read and added to.
    """

    def __init__(self, made: Plan, evaluator: Evaluator, journal: Log, progress: Progress, found: Found) -> None:
        self.plan, self.evaluator, self.journal, self.progress, self.found = made, evaluator, journal, progress, found
        self.rescoring = Rescoring(evaluator, made.pool, made.partition, progress)

    @property
    def search(self) -> str:
        """Name of the search's own scores, where they are others than those of record; empty otherwise."""
        return self.rescoring.search if self.rescoring.due else ""

    def rescore(self, name: str) -> None:
        """Replaces what a search in bf16 saw by the outcome of record; the best single model may be another one."""
        found = self.found
        if not self.rescoring.due or name not in found.merges:
            return
        if name == "best":
            single, recipe, outcome = self.rescoring.best_single()
            found.merges[name], found.single = replace(found.merges[name], merge=recipe), (single, outcome)
            if found.outcomes[name, HELD_OUT] is not outcome:
                score = scored(outcome.score, self.plan.measure)
                self.progress.say(f"  re-scored in fp32, the best single model is {single}, {score} held-out")
        else:
            self.progress.stage("re-scored in fp32")
            outcome = self.evaluator.record(found.merges[name].merge)
        found.outcomes[name, HELD_OUT] = outcome

    def settle(self, *, interrupted: bool) -> None:
        """Makes outcomes of record on the held-out data, of every row and of the best single model.

        Of an interrupted run only what decides which merge is saved: a score in fp32, of what has none yet.
        """
        if self.evaluator.of_record():
            return
        tell_precision(self.progress, "")
        found, due = self.found, self.rescoring.due
        if interrupted and not due:
            return
        with self.evaluator.ledger.unhurried() if interrupted else contextlib.nullcontext():
            self.evaluator.foresee([(found.merges[name].merge, HELD_OUT) for name in found.scored], record=True)
            for name in found.scored:
                if due and not interrupted:
                    self.rescore(name)
                else:
                    found.outcomes[name, HELD_OUT] = self.evaluator.record(found.merges[name].merge)
            if found.single is not None and due and (self.rescoring.ranked or not interrupted):
                single, _, outcome = self.rescoring.best_single()
                found.single = single, outcome
            elif found.single is not None:
                found.single = found.single[0], self.rescoring.single(found.single[0])
            if due and not interrupted:
                asked = self.plan.strategy
                end = found.outcomes.get((asked.name, HELD_OUT)) if asked.name != "best" else None
                found.remarks = self.rescoring.reversals(asked.label or asked.name, found.kept, end)

    def certify(self) -> None:
        """Asks the samples that selected nothing; where they refuse the merge, the best single model is saved."""
        found, candidate = self.found, self.found.saved
        if self.plan.task is None or self.plan.task.certify is None or "best" not in found.merges:
            return
        single = found.merges["best"].merge
        if candidate == "best" or not isinstance(single, Recipe):
            return
        self.progress.stage("certifying on held-out samples that selected nothing")
        before = found.outcomes["best", CERTIFY] = self.evaluator.record(single, CERTIFY)
        after = found.outcomes[candidate, CERTIFY] = self.evaluator.record(found.merge, CERTIFY)
        found.certificate = Certificate(after.samples, before.score, after.score, after.score > before.score)
        self.journal.write("certificate", **asdict(found.certificate))
        if not found.certificate.accepted:
            found.saved = "best"

    def score_tests(self) -> None:
        """Scores every merge on every test set."""
        names = list(self.plan.task.tests) if self.plan.task is not None and self.plan.settings.rules.tests else []
        if not names:
            return
        from merging.evaluation.steps import Steps

        merges = [made.merge for made in self.found.merges.values()]
        steps = Steps(self.evaluator, self.progress, "scoring the test sets", merges, names, record=True)
        self.evaluator.foresee([(merge, name) for merge in merges for name in names], record=True)
        for strategy, made in self.found.merges.items():
            for name in names:
                self.found.outcomes[strategy, name] = self.evaluator.record(made.merge, name)
                steps.done()

    def unranked(self) -> list[str]:
        """Says where the best single model is only the best by the search's own scores: one sentence, or none."""
        if not self.rescoring.due or self.rescoring.ranked or self.found.single is None:
            return []
        return [
            f"{self.found.single[0]} is the best single model by {self.rescoring.search} scores: the run was "
            "interrupted before all models were re-scored in fp32"
        ]

"""One run: what happens, in order."""

from __future__ import annotations

import time
from dataclasses import replace

from merging.errors import InterruptedRunError, Stopped, StopReason
from merging.mixing.computed import check_merge
from merging.plugins.progress import tell_measure, tell_precision
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import HELD_OUT
from merging.running.found import Found, Made
from merging.running.notes import doubt
from merging.running.pool_scores import best_of_pool, known_of_pool, score_pool
from merging.running.scores import Scores
from merging.running.session import Session
from merging.running.whole import run_strategy
from merging.values.outcome import Meter, Outcome
from merging.values.recipe import Merge, Recipe
from merging.values.report import scored
from merging.values.states import RunState, status_of


class Execution:
    """One run, step by step in order; ``found`` is what it has found so far."""

    def __init__(self, session: Session) -> None:
        self.session, self.plan, self.evaluator = session, session.plan, session.evaluator
        self.journal, self.progress = session.journal, session.progress
        self.found = Found(saved=self.plan.strategy.name)
        self.scores = (
            Scores(session.plan, self.evaluator, self.journal, self.progress, self.found) if self.evaluator else None
        )

    def execute(self) -> Found:
        """Runs baselines and strategy, makes the scores of record, chooses what is saved, and scores the test sets.

        Raises:
            InterruptedRunError: it was stopped before anything had a result.
        """
        made, found = self.plan, self.found
        if self.evaluator is not None and made.task is not None and made.settings.rules.tests:
            self.evaluator.scorer.check_labels(tuple(made.task.tests))
        try:
            found.doubt = doubt(self.session)
            for strategy in self.session.strategies:
                self._mix(strategy)
                if self.scores is not None:
                    self.scores.rescore(strategy.name)
        except (Stopped, KeyboardInterrupt) as stop:
            self._stopped(stop)
        if self.scores is not None:
            try:
                self.scores.settle(interrupted=found.interrupted)
            except (Stopped, KeyboardInterrupt):
                self._stopped(Stopped(StopReason.INTERRUPTED))
                self.scores.settle(interrupted=True)
        self._choose()
        if self.scores is not None:
            try:
                if not found.interrupted:
                    self.scores.certify()
                    self.scores.score_tests()
                    score_pool(self.session, found)
            except (Stopped, KeyboardInterrupt):
                self._stopped(Stopped(StopReason.INTERRUPTED))
            known_of_pool(self.session, found)
            found.remarks += self.scores.unranked()
            best_of_pool(self.session, found)
        return found

    def _stopped(self, stop: Stopped | KeyboardInterrupt) -> None:
        """Keeps why the run ends, in the journal too; pressing Ctrl-C is an interruption."""
        limited = isinstance(stop, Stopped) and stop.reason is StopReason.LIMIT
        self.found.state = RunState.LIMIT if limited else RunState.INTERRUPTED
        self.found.limit = stop.limit if isinstance(stop, Stopped) else None
        self.journal.write("stopped", why=status_of(self.found.state, self.found.limit), time=time.time())

    def _mix(self, strategy: MixStrategy) -> None:
        """Runs one strategy with a meter of its own; of one that is stopped, its own best so far is its merge."""
        began = time.perf_counter()
        total = self.evaluator.ledger.total.seconds if self.evaluator else 0.0
        meter = self.evaluator.ledger.begin() if self.evaluator else Meter()
        self.progress.say(strategy.label or strategy.name)
        self.progress.stage(strategy.label or strategy.name)  # what was done before is not shown beside it
        tell_precision(self.progress, self.scores.search if self.scores is not None else "")
        made, found = self.plan, self.found
        tell_measure(self.progress, made.measure)
        problem = self.session.problem(strategy, self._ranked)
        self.journal.write("strategy", name=strategy.name, options=strategy.options())
        if strategy is made.strategy:
            found.decisions, found.kept = problem.decisions, problem.kept
        given: tuple[Merge, Outcome | None] | None = None
        try:
            merged = run_strategy(strategy, problem)
            check_merge(merged, made.pool)
            outcome = None
            if self.evaluator is not None:
                merged = self.evaluator.recalibrated(merged)
                outcome = self.evaluator.evaluate(merged)
                if isinstance(merged, Recipe):
                    problem.keep(merged, outcome)
            given = merged, outcome
        except (Stopped, KeyboardInterrupt):
            found.cut, given = strategy.name, problem.best
            raise
        finally:
            if problem.top is not None and problem.top_name is not None:
                found.single = problem.top_name, problem.top
            if given is not None:
                paid = self.evaluator.ledger.total.seconds - total if self.evaluator else 0.0
                own = max(time.perf_counter() - began - paid, 0.0) + meter.seconds
                found.merges[strategy.name] = Made(
                    strategy.label or strategy.name, given[0], meter, own, selected=problem.selected
                )
                if given[1] is not None:
                    found.outcomes[strategy.name, HELD_OUT] = given[1]

    def _ranked(self, name: str, outcome: Outcome) -> None:
        """Says which model is the best single one, once."""
        if self.found.single is None:
            self.found.single = name, outcome
            where = f" ({self.scores.search})" if self.scores is not None and self.scores.search else ""
            score = scored(outcome.score, self.plan.objective.name)
            self.progress.say(f"  the best single model{where} is {name}, {score} held-out")

    def _choose(self) -> None:
        """Names the row that is saved: the strategy's, or, where it did not end, the best one so far, whosever it is.

        Of rows with equal scores the latest is taken, so that a strategy's own merge goes before a baseline's.

        Raises:
            InterruptedRunError: nothing has a result yet.
        """
        found, asked = self.found, self.plan.strategy.name
        if asked in found.merges and found.cut != asked:
            return
        if not found.merges:
            ended, more = "interrupted", ""
            if not found.interrupted:
                ended, more = f"`max_evaluations` {found.limit} reached", ", go on with `resume` and a larger one"
            raise InterruptedRunError(f"{ended} before the first result; there is nothing to save yet{more}")
        scores = {name: found.outcomes[name, HELD_OUT].score for name in found.scored}
        found.saved = max(reversed(scores), key=lambda name: scores[name]) if scores else next(reversed(found.merges))
        if self.evaluator is not None and found.saved == found.cut:  # the others have been measured when they ended
            own = found.merges[found.saved]
            found.merges[found.saved] = replace(own, merge=self.evaluator.recalibrated(own.merge))

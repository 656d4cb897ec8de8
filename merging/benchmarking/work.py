"""The work of a benchmark: the model under one partition after the other, and one method's run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from merging.benchmarking.memory import Memory
from merging.benchmarking.runs import Coefficients, Entry, MethodRun
from merging.benchmarking.sinks import Sinks, end_of_method
from merging.benchmarking.watch import Trace
from merging.errors import MergingError, PartitionError, RequirementError, Stopped, StopReason, raised
from merging.evaluation.steps import Steps
from merging.mixing.computed import check_merge
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, tell_measure, tell_precision
from merging.plugins.strategy import MixStrategy, required
from merging.plugins.task import HELD_OUT
from merging.plugins.user_code import PluginError
from merging.plugins.watcher import Watcher
from merging.running.elsewhere import whole
from merging.running.following import Followers
from merging.running.given import Parts
from merging.running.needs import check_needs
from merging.running.plan import Plan, plan
from merging.running.problem import MergeProblem
from merging.running.rescoring import Rescoring
from merging.running.search import Searching
from merging.running.session import Session
from merging.running.settings import Settings
from merging.running.whole import run_strategy
from merging.storage.pool import ModelPool
from merging.storage.training_beside import trained_with
from merging.strategies.best import Best
from merging.values.leaderboard import Single, differing
from merging.values.outcome import Outcome, unscored
from merging.values.recipe import Merge, Recipe, inference_cost
from merging.values.states import MethodState

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log, Observer
    from merging.evaluation.workers.crew import Crew
    from merging.forward.numerics import Numerics


class Plans:
    """The model, divided by one partitioner at a time: only one of them is in memory."""

    def __init__(
        self,
        pool: ModelPool,
        partitioners: Mapping[str, Partitioner],
        parts: Parts,
        settings: Settings,
        progress: Progress,
        measured: Numerics | None = None,
    ) -> None:
        self.pool, self.partitioners = pool, partitioners
        self._parts, self._settings, self._progress = parts, settings, progress
        self._measured = measured
        self._made: tuple[str, Plan] | None = None
        self._refused: dict[str, PartitionError] = {}

    def first(self) -> Plan:
        """The plan of the first partitioner that understands this model.

        Raises:
            MergingError: none does, or model, pool and data do not fit together.
        """
        reason: PartitionError | None = None
        for label in self.partitioners:
            try:
                return self[label]
            except PartitionError as error:
                reason = reason or error
        raise reason or RequirementError("a benchmark needs a partitioner")

    def __getitem__(self, label: str) -> Plan:
        if label in self._refused:
            raise self._refused[label]
        if self._made is None or self._made[0] != label:
            if self._made is not None:  # measured once; and the earlier model makes room before the next is built
                self._measured, self._made = self._made[1].numerics, None
            try:
                # Best, because it needs the least: what the methods need is checked one by one.
                made = plan(
                    self.pool,
                    Best(),
                    parts=dataclasses.replace(self._parts, partitioner=self.partitioners[label]),
                    settings=self._settings,
                    progress=self._progress,
                    measured=self._measured,
                )
            except PartitionError as error:
                self._refused[label] = error
                raise
            self._made = (label, made)
        return self._made[1]

    @property
    def refused(self) -> dict[str, str]:
        """Partitions that were tried and do not fit the model, and why."""
        return {label: str(self._refused[label]) for label in self.partitioners if label in self._refused}

    def header(self, made: Plan) -> dict[str, Any]:
        """Makes the memory's first event: all that must be the same for its scores to be used again."""
        own = ("request", "strategy", "partitioner", "optimizer", "seed", "budget", "baselines", "tests")
        return {key: value for key, value in made.header(None).items() if key not in (*own, "certify_split")}


class Work:
    """The plans, the memory, the watcher, the workers and the sinks with which every method of a benchmark is run.

    Attributes:
        remarks: sentences about single models, for the notes of the benchmark.
        coming: the runs that are still to be made, in order.
    """

    def __init__(
        self, plans: Plans, memory: Memory, watcher: Watcher, crew: Crew | None = None, sinks: Sinks | None = None
    ) -> None:
        self._crew, self._sinks = crew, sinks or Sinks()
        self.plans, self.memory, self.watcher, self.progress = plans, memory, watcher, watcher.progress
        self.remarks: list[str] = []
        self.coming: list[Entry] = []

    def session(self, made: Plan, log: Log | None = None, observers: Sequence[Observer] = ()) -> Session:
        """Opens a fresh session over the shared memory.

        Each method has one of its own: kept activations, and the order in which threshold tests visit samples, are
        then those of the method alone, so that its result does not depend on which methods ran before it.
        """
        return Session.open(made, log or self.memory, self.watcher, observers, self._crew)

    def singles(self) -> tuple[Single, ...]:
        """Every model of the pool on every set."""
        made, pool = self.plans.first(), self.plans.pool
        evaluator = self._evaluator(self.session(made))
        task = evaluator.task
        trained = differing({checkpoint.name: trained_with(checkpoint) for checkpoint in pool.checkpoints})
        recipes, names = [Recipe.single(row, made.partition) for row in pool.ingredients], (HELD_OUT, *task.tests)
        steps = Steps(evaluator, self.progress, "single models on all sets", recipes, names, record=True)
        evaluator.foresee([(recipe, name) for recipe in recipes for name in names], record=True)
        found = []
        for ingredient, recipe in zip(pool.ingredients, recipes, strict=True):
            sets = {}
            for name in names:  # as a search sees it where that is the same: methods find it then
                score = evaluator.evaluate if evaluator.of_record(name) else evaluator.record
                sets[name] = score(recipe, name)
                steps.done()
            scores = {name: outcome.score for name, outcome in sets.items()}
            own = trained[ingredient.name]
            found.append(Single.of(ingredient.name, scores, held_out=HELD_OUT, shifts=task.shifts, trained=own))
            said = unscored(sets, made.objective.name)
            self.remarks += [f"{ingredient.name}: {said}"] if said else []
        return tuple(found)

    def run(self, entry: Entry) -> MethodRun:
        """Runs one method at one seed; what it cannot do, or breaks on, is part of the result.

        Raises:
            Stopped: the benchmark is interrupted.
        """
        facts = entry.to_json()
        try:
            made = self.plans[entry.partition]
            check_needs(entry.strategy, self.plans.pool, made.task)
        except (PartitionError, RequirementError) as error:
            return self._without(facts, MethodState.CANNOT_RUN, str(error))
        except PluginError as error:  # of the partitioner; the others go on
            return self._without(facts, MethodState.FAILED, str(error))
        own = made.settings.changed({"seed": entry.seed, **entry.limits})
        made = dataclasses.replace(made, strategy=entry.strategy, optimizer=entry.optimizer, settings=own)
        try:
            with self._sinks.of(made, entry, self.progress) as followers:
                run = self._finish(entry, made, facts, followers)
                followers.end = end_of_method(run)
                return run
        except Stopped as stop:
            if self.watcher.should_stop() or stop.reason is not StopReason.LIMIT:
                raise
            return self._without(facts, MethodState.CANNOT_RUN, f"{stop} before the first result")
        except MergingError as error:
            return self._without(facts, MethodState.FAILED, str(error))
        except Exception as error:  # ours, in the middle of a method of somebody else's; the others go on
            return self._without(facts, MethodState.FAILED, raised(error))

    def _without(self, facts: Mapping[str, Any], status: MethodState, why: str) -> MethodRun:
        self.progress.say(f"  {status}: {why}")
        return MethodRun(entry=facts, status=status, why=why)

    def _finish(self, entry: Entry, made: Plan, facts: Mapping[str, Any], followers: Followers) -> MethodRun:
        began, trace, log = time.perf_counter(), Trace(), followers.log(self.memory)
        log.write("strategy", name=entry.strategy.name, options=entry.strategy.options())
        session = followers.follow(self.session(made, log, (trace, *followers.observers)))
        evaluator, problem, why = self._evaluator(session), session.problem(entry.strategy), ""
        search = Rescoring(evaluator, made.pool, made.partition, self.progress)
        tell_precision(self.progress, search.search if search.due else "")
        tell_measure(self.progress, evaluator.objective.name)
        try:
            found = self._mixed(entry, problem)
            check_merge(found, made.pool)
            merged = evaluator.recalibrated(found)
            outcome = evaluator.evaluate(merged)
        except Stopped as stop:
            if self.watcher.should_stop() or problem.best is None:
                raise
            why, outcome = f"{stop}: the best so far", problem.best[1]
            merged = evaluator.recalibrated(problem.best[0])
        meter = dataclasses.replace(evaluator.ledger.meter)
        # Passes of this session are in the meter's seconds already, as are those that were only looked up.
        elsewhere = time.perf_counter() - began - evaluator.ledger.spent
        if not evaluator.of_record():
            if entry.strategy.name == Best.name and search.due:  # bf16 may rank the models otherwise
                _, merged, outcome = search.best_single()
            else:
                outcome = evaluator.record(merged)
                if search.due:
                    why = "; ".join([*([why] if why else []), *search.reversals(entry.method, problem.kept, outcome)])
        outcomes: dict[str, Outcome] = {HELD_OUT: outcome}
        evaluator.foresee([(merged, name) for name in evaluator.task.tests], record=True, first=True)
        for name in evaluator.task.tests:
            outcomes[name] = evaluator.record(merged, name)
        return MethodRun(
            entry=facts,
            status=MethodState.FINISHED,
            why=why,
            outcomes=outcomes,
            selected=problem.selected,
            digest=evaluator.keys.evaluation(merged),
            seeded=problem.seeds.used,
            ingredients=merged.names,
            evaluations=meter.evaluations,
            cached=meter.cached,
            forward_equivalents=meter.forward_equivalents,
            seconds=max(elsewhere, 0.0) + meter.seconds,
            inference_cost=inference_cost(merged),
            coefficients=_coefficients(merged),
            trace=tuple(trace.lines),
            model=evaluator.keys.identity(merged),
        )

    def _mixed(self, entry: Entry, problem: MergeProblem) -> Merge:
        """What a method gives; where workers are many enough for each to run one, those that come next run too."""
        same = [each for each in self.coming if each.partition == entry.partition and _searches(each.strategy)]
        self.coming = [each for each in self.coming if each is not entry]
        if self._crew is None or entry not in same or len(same) < self._crew.count or not problem.elsewhere:
            return run_strategy(entry.strategy, problem)
        problem.elsewhere.coming(
            (each.strategy, Searching(each.optimizer, each.seed, each.limits["budget"])) for each in same
        )
        return problem.apart(whole, strategy=entry.strategy)

    @staticmethod
    def _evaluator(session: Session) -> Evaluator:
        if session.evaluator is None:
            raise RequirementError(
                "a benchmark scores its methods: give `task`, or a merge.toml with a [task] (merge init writes one)"
            )
        return session.evaluator


def _searches(strategy: MixStrategy) -> bool:
    """Whether a strategy does little else than ask for scores."""
    needs = required(strategy)
    return "objective" in needs and not needs & {"gradients", "per_sample_gradients"}


def _coefficients(merged: Merge) -> Coefficients | None:
    """A recipe's table, for the heat map; nothing of merges that have none."""
    if not isinstance(merged, Recipe):
        return None
    names = tuple(ingredient.name for ingredient in merged.ingredients)
    columns = list(merged.partition.effective)
    return Coefficients(names, tuple(merged.partition.names[i] for i in columns), merged.coefficients[:, columns])

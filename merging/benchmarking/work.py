"""The work of a benchmark: the model under one partition after the other, and one method's run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from merging.benchmarking.memory import Memory
from merging.benchmarking.results import Single
from merging.benchmarking.runs import Coefficients, Entry, MethodRun
from merging.errors import MergingError, PartitionError, RequirementError, Stopped, StopReason, StrategyError, raised
from merging.mixing.computed import check_merge
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, tell_measure, tell_precision
from merging.plugins.task import HELD_OUT, Task
from merging.plugins.user_code import contained
from merging.running.needs import check_needs
from merging.running.plan import Plan, plan
from merging.running.rescoring import Rescoring
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.values.outcome import Outcome, unscored
from merging.values.recipe import Ensemble, Merge, Recipe, Weights
from merging.values.states import MethodState

if TYPE_CHECKING:
    from merging.benchmarking.watch import SharedEvaluator


class Plans:
    """The model, divided by one partitioner at a time: only one of them is in memory."""

    def __init__(
        self, pool: ModelPool, partitioners: Mapping[str, Partitioner], settings: Mapping[str, Any], tune: Any
    ) -> None:
        self.pool, self.partitioners = pool, partitioners
        self._settings, self._tune = settings, tune
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
                self._tune, self._made = self._made[1].numerics, None
            try:
                # Best, because it needs the least: what the methods need is checked one by one.
                made = plan(
                    self.pool,
                    Best(),
                    partitioner=self.partitioners[label],
                    tune=self._tune,
                    baselines=False,
                    **self._settings,
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
        """What must be the same for scores to be used again."""
        own = ("request", "strategy", "partitioner", "optimizer", "seed", "budget", "baselines", "tests")
        return {key: value for key, value in made.header(None).items() if key not in (*own, "certify_split")}


class Work:
    """What every method is run with.

    Attributes:
        remarks: what is to be said of single models.
    """

    def __init__(
        self,
        plans: Plans,
        memory: Memory,
        progress: Progress,
        should_stop: Callable[[], bool],
        cache_memory: int | None,
        *,
        exact_savings: bool,
    ) -> None:
        self.plans, self.memory, self.progress, self.should_stop = plans, memory, progress, should_stop
        self.remarks: list[str] = []
        self._cache_memory, self._exact_savings = cache_memory, exact_savings

    def evaluator(self, made: Plan, limit: int | None = None) -> SharedEvaluator:
        """A fresh one over the shared memory."""
        from merging.benchmarking.watch import SharedEvaluator
        from merging.evaluation.evaluator import CACHE_MEMORY

        memory = CACHE_MEMORY if self._cache_memory is None else self._cache_memory << 20
        found = SharedEvaluator(
            made.live,
            made.task,
            made.objective,
            made.numerics,
            self.memory,
            limit=limit,
            should_stop=self.should_stop,
            exact_savings=self._exact_savings,
            measure_again=made.recalibrate,
            progress=self.progress,
            cache_memory=memory,
        )
        found.begin()
        return found

    def singles(self) -> tuple[Single, ...]:
        """Every model of the pool on every set."""
        made, pool = self.plans.first(), self.plans.pool
        evaluator, task = self.evaluator(made), self._task(made)
        self.progress.stage("single models on all sets", len(pool))
        found = []
        for ingredient in pool.ingredients:
            recipe = Recipe.single(ingredient, made.partition)
            sets = {name: evaluator.record(recipe, name) for name in (HELD_OUT, *task.tests)}
            found.append(Single.of(ingredient.name, sets, task.shifts))
            said = unscored(sets, made.objective.name)
            self.remarks += [f"{ingredient.name}: {said}"] if said else []
            self.progress.advance()
        return tuple(found)

    def run(self, entry: Entry) -> MethodRun:
        """One method at one seed; what it cannot do, or breaks on, is part of the result.

        Raises:
            Stopped: the benchmark is interrupted.
        """
        facts = entry.to_json()
        try:
            made = self.plans[entry.partition]
            check_needs(entry.strategy, self.plans.pool, made.task)
        except (PartitionError, RequirementError) as error:
            return self._without(facts, MethodState.CANNOT_RUN, str(error))
        try:
            return self._finish(entry, made, facts)
        except Stopped as stop:
            if self.should_stop() or stop.reason is not StopReason.LIMIT:
                raise
            return self._without(facts, MethodState.CANNOT_RUN, f"{stop} before the first result")
        except MergingError as error:
            return self._without(facts, MethodState.FAILED, str(error))
        except Exception as error:  # a method of somebody else's may raise anything, and the others go on
            return self._without(facts, MethodState.FAILED, raised(error))

    def _without(self, facts: Mapping[str, Any], status: MethodState, why: str) -> MethodRun:
        self.progress.say(f"  {status}: {why}")
        return MethodRun(entry=facts, status=status, why=why)

    def _finish(self, entry: Entry, made: Plan, facts: Mapping[str, Any]) -> MethodRun:
        from merging.benchmarking.watch import WatchedProblem

        task, began, before = self._task(made), time.perf_counter(), self.memory.seconds
        evaluator = self.evaluator(made, entry.limits.get("max_evaluations"))
        problem = WatchedProblem(
            made.pool,
            made.partition,
            evaluator,
            entry.optimizer,
            self.memory,
            self.progress,
            seed=entry.seed,
            budget=entry.limits.get("budget"),
        )
        why = ""
        search = Rescoring(evaluator, made.pool, made.partition, self.progress)
        tell_precision(self.progress, search.search if search.due else "")
        tell_measure(self.progress, evaluator.objective.name)
        try:
            with contained():
                mixed = entry.strategy.mix(problem)
            if not isinstance(mixed, Merge):
                raise StrategyError(f"strategy '{entry.strategy.name}' returned {mixed!r}, which is no merge")
            check_merge(mixed, made.pool)
            merged = evaluator.recalibrated(mixed)
            outcome = evaluator.evaluate(merged)
        except Stopped as stop:
            if self.should_stop() or problem.best is None:
                raise
            why, outcome = f"{stop}: the best so far", problem.best[1]
            merged = evaluator.recalibrated(problem.best[0])
        meter = dataclasses.replace(evaluator.meter)
        # Passes of this session are in the meter's seconds already, as are those that were only looked up.
        own = time.perf_counter() - began - (self.memory.seconds - before)
        if not evaluator.of_record():
            if entry.strategy.name == Best.name and search.due:  # bf16 may rank the models otherwise
                _, merged, outcome = search.best_single()
            else:
                outcome = evaluator.record(merged)
                if search.due:
                    why = "; ".join([*([why] if why else []), *search.reversals(entry.method, problem.kept, outcome)])
        outcomes: dict[str, Outcome] = {HELD_OUT: outcome}
        for name in task.tests:
            outcomes[name] = evaluator.record(merged, name)
        names = tuple(i.name for i in merged.ingredients) if isinstance(merged, Weights) else merged.names
        return MethodRun(
            entry=facts,
            status=MethodState.FINISHED,
            why=why,
            outcomes=outcomes,
            digest=evaluator.digest(merged),
            seeded=problem.seeded,
            ingredients=names,
            evaluations=meter.evaluations,
            cached=meter.cached,
            forward_equivalents=meter.forward_equivalents,
            seconds=max(own, 0.0) + meter.seconds,
            inference_cost=len(merged.members) if isinstance(merged, Ensemble) else 1,
            coefficients=_coefficients(merged),
            trace=tuple(evaluator.trace),
            model=evaluator.identity(merged),
        )

    def _task(self, made: Plan) -> Task:
        if made.task is None:
            raise RequirementError("a benchmark scores its methods: give `task`, or a merge.toml with a [task]")
        return made.task


def _coefficients(merged: Merge) -> Coefficients | None:
    """A recipe's table, for the heat map; nothing of merges that have none."""
    if not isinstance(merged, Recipe):
        return None
    names = tuple(ingredient.name for ingredient in merged.ingredients)
    columns = list(merged.partition.effective)
    return Coefficients(names, tuple(merged.partition.names[i] for i in columns), merged.coefficients[:, columns])

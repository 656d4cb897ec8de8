"""One run between its steps: baselines and strategy, scores, the end, what is told of it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from merging.errors import InterruptedRunError, Stopped, StopReason, StrategyError
from merging.evaluation.comparing import Comparer
from merging.machine import peak_memory
from merging.mixing.computed import check_merge
from merging.mixing.writing import Written
from merging.plugins.progress import Progress, tell_measure, tell_precision
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import CERTIFY, HELD_OUT, Task
from merging.plugins.user_code import contained
from merging.running.baselines import BASELINES
from merging.running.notes import RELEASE, doubt, layers, negative_variance, shown
from merging.running.plan import Plan, versions
from merging.running.problem import MergeProblem
from merging.running.rescoring import Rescoring
from merging.storage.journal import Journal
from merging.values.outcome import Meter, Outcome, unscored
from merging.values.recipe import Ensemble, Merge, Recipe, Weights
from merging.values.report import SMALL_SAMPLE, Certificate, Report, Row, average, best_single
from merging.values.verdict import Verdict, corrected

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator


@dataclass(frozen=True)
class Made:
    """What one strategy has given.

    Attributes:
        label: what tables call the strategy.
        merge: the merged model; of a strategy that was stopped, its best so far.
        meter: what it would have cost alone.
        seconds: what its evaluations and its own work took.
    """

    label: str
    merge: Merge
    meter: Meter
    seconds: float


@dataclass(kw_only=True)
class Found:
    """What a run has found so far: its steps add to it, the report and the notes read it.

    Attributes:
        saved: strategy of the row whose merge is written.
        merges: strategy → what it gave, in the order in which they were run.
        outcomes: (strategy, set) → outcome, of record once it has been made.
        cut: the strategy that was stopped; its row is its own best so far.
        single: name and outcome of the best single model on the held-out data, once the models are ranked.
        decisions: what the strategy that was asked for has accepted and refused.
        kept: its incumbents in order, with what the search saw of them.
        certificate: whether samples that selected nothing accepted the merge, where they were asked.
        doubt: that a model is no better than a guess, where that is so.
        remarks: where scores of record contradict the search.
        end: why the run has ended before its strategy; None where it has not.
    """

    saved: str
    merges: dict[str, Made] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    cut: str | None = None
    single: tuple[str, Outcome] | None = None
    decisions: list[dict[str, Any]] = field(default_factory=list)
    kept: list[tuple[Recipe, Outcome]] = field(default_factory=list)
    certificate: Certificate | None = None
    doubt: str | None = None
    remarks: list[str] = field(default_factory=list)
    end: Stopped | None = None

    @property
    def merge(self) -> Merge:
        """The merged model that is saved."""
        return self.merges[self.saved].merge

    @property
    def scored(self) -> list[str]:
        """The strategies whose merge has a held-out score, in order."""
        return [name for name in self.merges if (name, HELD_OUT) in self.outcomes]

    @property
    def interrupted(self) -> bool:
        """Whether somebody has stopped the run; its limit is nobody."""
        return self.end is not None and self.end.reason is StopReason.INTERRUPTED

    def seen(self, name: str) -> dict[str, tuple[Outcome, ...]]:
        """A row's outcomes, by set."""
        return {split: (outcome,) for (strategy, split), outcome in self.outcomes.items() if strategy == name}


class Scores:
    """Scores of record of one run's merges, by which the result is chosen, certified and shown.

    Args:
        made: the run's plan.
        evaluator: the door.
        journal: where the certificate goes.
        progress: told what is scored.
        found: read and added to.
    """

    def __init__(self, made: Plan, evaluator: Evaluator, journal: Journal, progress: Progress, found: Found) -> None:
        self.plan, self.evaluator, self.journal, self.progress, self.found = made, evaluator, journal, progress, found
        self.rescoring = Rescoring(evaluator, made.pool, made.partition, progress)

    @property
    def search(self) -> str:
        """What the search's own scores are called, where they are others than those of record; empty otherwise."""
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
                score = shown(outcome.score, self.plan.objective.name)
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
        with self.evaluator.unhurried() if interrupted else contextlib.nullcontext():
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
        names = list(self.plan.task.tests) if self.plan.task is not None and self.plan.tests else []
        self.progress.stage("scoring the test sets", len(names) * len(self.found.merges))
        for strategy, made in self.found.merges.items():
            for name in names:
                self.found.outcomes[strategy, name] = self.evaluator.record(made.merge, name)
                self.progress.advance()

    def unranked(self) -> list[str]:
        """What is to be said where the best single model is only the best by the search's own scores."""
        if not self.rescoring.due or self.rescoring.ranked or self.found.single is None:
            return []
        return [
            f"{self.found.single[0]} is the best single model by {self.rescoring.search} scores: the run was "
            "interrupted before all models were re-scored in fp32"
        ]


class Execution:
    """One run: what happens, in order; ``found`` is what it has found so far."""

    def __init__(
        self,
        made: Plan,
        journal: Journal,
        progress: Progress,
        should_stop: Callable[[], bool],
        cache_memory: int | None,
        *,
        exact_savings: bool,
    ) -> None:
        self.plan, self.journal, self.progress = made, journal, progress
        self.evaluator: Evaluator | None = None
        if made.task is not None and made.live is not None and made.numerics is not None:
            from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator

            self.evaluator = Evaluator(
                made.live,
                made.task,
                made.objective,
                made.numerics,
                journal,
                limit=made.max_evaluations,
                should_stop=should_stop,
                exact_savings=exact_savings,
                measure_again=made.recalibrate,
                progress=progress,
                cache_memory=CACHE_MEMORY if cache_memory is None else cache_memory << 20,
            )
        self.found = Found(saved=made.strategy.name)
        self.scores = Scores(made, self.evaluator, journal, progress, self.found) if self.evaluator else None

    def execute(self) -> Found:
        """Runs baselines and strategy, makes the scores of record, chooses what is saved, and scores the test sets.

        Raises:
            InterruptedRunError: it was stopped before anything had a result.
        """
        made, found = self.plan, self.found
        certifying = made.task is not None and made.task.certify is not None
        wanted = BASELINES if made.baselines else BASELINES[:1] if certifying else ()
        baselines = [b for b in wanted if b.name != made.strategy.name and len(made.pool) >= b.min_models]
        if self.evaluator is not None and made.task is not None and made.tests:
            self.evaluator.check_labels(tuple(made.task.tests))
        try:
            found.doubt = doubt(self.evaluator, made.seed, self.progress)
            for strategy in (*baselines, made.strategy):
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
            except (Stopped, KeyboardInterrupt):
                self._stopped(Stopped(StopReason.INTERRUPTED))
            found.remarks += self.scores.unranked()
        return found

    def _stopped(self, stop: Stopped | KeyboardInterrupt) -> None:
        """Keeps why the run ends, in the journal too; pressing Ctrl-C is an interruption."""
        self.found.end = stop if isinstance(stop, Stopped) else Stopped(StopReason.INTERRUPTED)
        self.journal.write("stopped", why=str(self.found.end), time=time.time())

    def _mix(self, strategy: MixStrategy) -> None:
        """Runs one strategy with a meter of its own; of one that is stopped, its own best so far is its merge."""
        began = time.perf_counter()
        total = self.evaluator.total.seconds if self.evaluator else 0.0
        meter = self.evaluator.begin() if self.evaluator else Meter()
        self.progress.say(strategy.label or strategy.name)
        tell_precision(self.progress, self.scores.search if self.scores is not None else "")
        made, found = self.plan, self.found
        tell_measure(self.progress, made.objective.name)
        problem = MergeProblem(
            made.pool,
            made.partition,
            self.evaluator,
            made.optimizer,
            self.journal,
            self.progress,
            seed=made.seed,
            budget=made.budget,
            on_ranked=self._ranked,
        )
        self.journal.write("strategy", name=strategy.name, options=strategy.options())
        if strategy is made.strategy:
            found.decisions, found.kept = problem.decisions, problem.kept
        given: tuple[Merge, Outcome | None] | None = None
        try:
            with contained():
                merged = strategy.mix(problem)
            if not isinstance(merged, Merge):
                raise StrategyError(
                    f"strategy '{strategy.name}' returned {merged!r}, not a Recipe, Weights or Ensemble"
                )
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
                paid = self.evaluator.total.seconds - total if self.evaluator else 0.0
                own = max(time.perf_counter() - began - paid, 0.0) + meter.seconds
                found.merges[strategy.name] = Made(strategy.label or strategy.name, given[0], meter, own)
                if given[1] is not None:
                    found.outcomes[strategy.name, HELD_OUT] = given[1]

    def _ranked(self, name: str, outcome: Outcome) -> None:
        """Says which model is the best single one, once."""
        if self.found.single is None:
            self.found.single = name, outcome
            where = f" ({self.scores.search})" if self.scores is not None and self.scores.search else ""
            score = shown(outcome.score, self.plan.objective.name)
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
            more = "" if found.interrupted else ", go on with --resume and a larger one"
            raise InterruptedRunError(f"{found.end} before the first result; there is nothing to save yet{more}")
        scores = {name: found.outcomes[name, HELD_OUT].score for name in found.scored}
        found.saved = max(reversed(scores), key=lambda name: scores[name]) if scores else next(reversed(found.merges))
        if self.evaluator is not None and found.saved == found.cut:  # the others have been measured when they ended
            own = found.merges[found.saved]
            found.merges[found.saved] = replace(own, merge=self.evaluator.recalibrated(own.merge))


def report_of(
    made: Plan, found: Found, written: Written, evaluator: Evaluator | None, progress: Progress, started: float
) -> Report:
    """Everything that is known of a run.

    Args:
        made: its plan.
        found: what it has found.
        written: what was written of that.
        evaluator: its door; None where nothing was scored.
        progress: told that models are compared.
        started: ``time.time()`` of its start.
    """
    merged, task = written.merge, made.task
    comparer = Comparer(made.objective, task) if task is not None and evaluator is not None else None
    total = evaluator.total if evaluator is not None else Meter()
    names = _names(merged)
    return Report(
        strategy=made.strategy.name,
        options=made.strategy.options(),
        partitioner=made.partitioner.name,
        optimizer=made.optimizer.name,
        objective=made.objective.name,
        task=task.name if task else None,
        status="finished" if found.end is None else str(found.end),
        seed=made.seed,
        components=len(made.partition),
        active_components=len(made.partition.active),
        component_names=made.partition.names,
        top_single=found.single[1].score if found.single else None,
        pool=made.pool.names,
        ingredients=names,
        evaluations=total.evaluations,
        cached=total.cached,
        forward_equivalents=total.forward_equivalents,
        wall_seconds=time.time() - started,
        peak_memory_bytes=peak_memory(),
        held_out_samples=len(task.held_out) if task else 0,
        shifts=task.shifts if task else (),
        numerics=made.numerics.to_json() if made.numerics else {},
        versions=versions(),
        content_hash=written.hash,
        rows=_rows(task, found, comparer, evaluator),
        verdicts=_verdicts(made, found, comparer, progress),
        decisions=tuple(found.decisions),
        notes=notes(made, found, evaluator, names, written.negative),
        certificate=found.certificate,
        inference_cost=_cost(merged),
        ensemble=isinstance(merged, Ensemble),
        saved=found.saved,
        best_single_name=found.single[0] if found.single else None,
        measure=comparer.measure if comparer else made.objective.name,
        samples={split: outcome.samples for (_, split), outcome in found.outcomes.items()},
    )


def _rows(task: Task | None, found: Found, comparer: Comparer | None, evaluator: Evaluator | None) -> tuple[Row, ...]:
    """A row for each strategy whose merge was scored."""
    if task is None or comparer is None or evaluator is None:
        return ()
    rows = []
    for name in found.scored:
        made, seen = found.merges[name], found.seen(name)
        tests = {split: seen[split][0].score for split in task.tests if split in seen}
        rows.append(
            Row(
                name,
                made.label,
                seen[HELD_OUT][0].score,
                tests,
                average([tests[split] for split in task.shifts if split in tests]),
                _names(made.merge),
                made.meter.evaluations,
                made.meter.cached,
                made.meter.forward_equivalents,
                made.seconds,
                _cost(made.merge),
                comparer.accuracies(seen),
                evaluator.identity(made.merge),
            )
        )
    return tuple(rows)


def _verdicts(made: Plan, found: Found, comparer: Comparer | None, progress: Progress) -> tuple[Verdict, ...]:
    """The strategy that was asked for against the best single model, on every set."""
    asked, task = made.strategy.name, made.task
    if comparer is None or task is None or asked == "best" or asked not in found.merges:
        return ()
    before, after = found.seen("best"), found.seen(asked)
    name, outcome = found.single or (None, None)
    if outcome is not None:
        before.setdefault(HELD_OUT, (outcome,))
    sets = [HELD_OUT, *([CERTIFY] if CERTIFY in after else []), *(task.tests if made.tests else ())]
    progress.stage("comparing with the best single model")
    told = comparer.verdicts(sets, before, after, reference="best", against=best_single(name))
    return corrected([told])[0]


def _names(merged: Merge) -> tuple[str, ...]:
    """The models in a merge."""
    return tuple(i.name for i in merged.ingredients) if isinstance(merged, Weights) else merged.names


def _cost(merged: Merge) -> int:
    """Forward passes for each sample."""
    return len(merged.members) if isinstance(merged, Ensemble) else 1


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
        said += [f"{own.label}: {blank}"] if blank else []
    said += found.remarks
    if found.cut is not None and found.cut in found.merges:
        said.append(f"{found.merges[found.cut].label} did not come to its end: its row is its best so far")
    return said


def _of_models(made: Plan) -> list[str]:
    """What is odd about the checkpoints."""
    said = Counter(note for checkpoint in made.pool.checkpoints for note in checkpoint.notes)
    found = [f"{note} ({count} checkpoint{'s' if count > 1 else ''})" for note, count in said.items()]
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
    measured = evaluator.statistics if evaluator is not None else frozenset[str]()
    fresh = [name for name in norms if f"{name}.running_mean" in measured]
    rest = [name for name in norms if name not in fresh]
    calibration = evaluator.calibration if evaluator is not None else None
    found = []
    if fresh and calibration is not None:
        found.append(
            f"BatchNorm statistics of {layers(fresh)} were measured again on {calibration.samples:,} "
            f"{'training' if calibration.split == 'train' else calibration.split} samples"
        )
    if rest:
        data = made.task is not None and made.task.calibrates is not None
        way = "" if data else "; give training data ([task] train), or unlabelled, for that"
        found.append(
            f"BatchNorm statistics of {layers(rest)} were averaged, not measured again on data: scores may suffer{way}"
        )
    return found


def _of_data(task: Task, made: Plan) -> list[str]:
    """Samples that stand in two sets, numbers of the passes, and too few samples."""
    from merging.running.leaks import leaks  # loads torch

    found = [*leaks(task, made.live.module if made.live is not None else None)]
    if made.numerics is not None and made.numerics.remark is not None:
        found.append(made.numerics.remark)
    if len(task.held_out) < SMALL_SAMPLE:
        found.append(f"only {len(task.held_out)} held-out samples: below {SMALL_SAMPLE:,} a gain is easily luck")
    return found

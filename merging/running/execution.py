"""One run between its steps: baselines and strategy, scores, the end, what is told of it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from merging.errors import InterruptedRunError, Stopped, StrategyError
from merging.evaluation.comparing import Comparer
from merging.machine import peak_memory
from merging.mixing.computed import check_merge
from merging.mixing.writing import Written
from merging.plugins.progress import Progress, tell_measure, tell_precision
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import CERTIFY, HELD_OUT
from merging.plugins.user_code import contained
from merging.running.baselines import BASELINES
from merging.running.notes import RELEASE, doubt, layers, negative_variance, shown
from merging.running.plan import Plan, versions
from merging.running.rescoring import Rescoring
from merging.running.session import Session
from merging.storage.journal import Journal
from merging.values.outcome import Meter, Outcome, unscored
from merging.values.recipe import Ensemble, Merge, Recipe, Weights
from merging.values.report import SMALL_SAMPLE, Certificate, Report, Row, average, best_single
from merging.values.verdict import Verdict, corrected


class Execution:
    """One run's state between its steps."""

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
        self.session = Session.open(
            made,
            journal,
            progress,
            should_stop=should_stop,
            cache_memory=cache_memory,
            exact_savings=exact_savings,
        )
        self.evaluator = self.session.evaluator
        self.comparer = Comparer(made.objective, made.task) if made.task is not None and self.evaluator else None
        self.merges: dict[str, tuple[Merge, Meter, float]] = {}
        self.labels = {s.name: s.label or s.name for s in (*BASELINES, made.strategy)}
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.saved = made.strategy.name  # the row whose merge is written
        self.cut: str | None = None  # the strategy that was stopped; its row is its own best so far
        self.top: Outcome | None = None
        self.top_name: str | None = None
        self.decisions: list[dict[str, Any]] = []
        self.certificate: Certificate | None = None
        self.kept: list[tuple[Recipe, Outcome]] = []
        self.remarks: list[str] = []
        self.rescoring = Rescoring(self.evaluator, made.pool, made.partition, progress) if self.evaluator else None
        self.doubt: str | None = None

    def execute(self) -> tuple[Merge, str]:
        """Baselines, then the strategy, then the test sets. Returns the merge and how the run ended."""
        status = "finished"
        if self.evaluator is not None and self.plan.task is not None and self.plan.tests:
            self.evaluator.scorer.check_labels(tuple(self.plan.task.tests))
        try:
            self.doubt = doubt(self.session)
            for strategy in self.session.strategies:
                self._mix(strategy)
                self._rescore(strategy.name)
        except (Stopped, KeyboardInterrupt) as stop:
            status = str(stop) or "interrupted"
            self.journal.write("stopped", why=status, time=time.time())
        try:
            self._settle(interrupted=status == "interrupted")
        except (Stopped, KeyboardInterrupt):
            status = "interrupted"
            self.journal.write("stopped", why=status, time=time.time())
            self._settle(interrupted=True)
        self._choose(status)
        merged = self.merges[self.saved][0]
        try:
            if status != "interrupted":
                merged = self._certify(merged)
                self._score_all()
        except (Stopped, KeyboardInterrupt):
            status = "interrupted"
            self.journal.write("stopped", why=status, time=time.time())
        return merged, status

    def _rescore(self, name: str) -> None:
        """Replaces what a search in bf16 saw by the outcome of record; the best single model may be another one."""
        if self.evaluator is None or self.rescoring is None or not self.rescoring.due or name not in self.merges:
            return
        if name == "best":
            self.top_name, single, outcome = self.rescoring.best_single()
            _, meter, seconds = self.merges[name]
            self.merges[name], self.top = (single, meter, seconds), outcome
            if self.outcomes[name, HELD_OUT] is not outcome:
                self.progress.say(
                    f"  re-scored in fp32, the best single model is {self.top_name}, {self._shown(outcome)} held-out"
                )
        else:
            self.progress.stage("re-scored in fp32")
            outcome = self.evaluator.record(self.merges[name][0])
        self.outcomes[name, HELD_OUT] = outcome

    def _settle(self, *, interrupted: bool) -> None:
        """Outcomes of record on the held-out data, of every row and of the best single model.

        Of an interrupted run only what decides which merge is saved: a score in fp32, of what has none yet.
        """
        if self.evaluator is None or self.rescoring is None or self.evaluator.of_record():
            return
        tell_precision(self.progress, "")
        asked, due = self.plan.strategy.name, self.rescoring.due
        if interrupted and not due:
            return
        with self.evaluator.ledger.unhurried() if interrupted else contextlib.nullcontext():
            for name in [name for name in self.merges if (name, HELD_OUT) in self.outcomes]:
                if due and not interrupted:
                    self._rescore(name)
                else:
                    self.outcomes[name, HELD_OUT] = self.evaluator.record(self.merges[name][0])
            if self.top_name is not None and due and (self.rescoring.ranked or not interrupted):
                self.top_name, _, self.top = self.rescoring.best_single()
            elif self.top_name is not None:
                self.top = self.rescoring.single(self.top_name)
            if due and not interrupted:
                end = self.outcomes.get((asked, HELD_OUT)) if asked != "best" else None
                self.remarks = self.rescoring.reversals(self.labels[asked], self.kept, end)

    def _choose(self, status: str) -> None:
        """Names the row that is saved: the strategy's, or, where it did not end, the best one so far, whosever it is.

        Of rows with equal scores the latest is taken, so that a strategy's own merge goes before a baseline's.

        Raises:
            InterruptedRunError: nothing has a result yet.
        """
        asked = self.plan.strategy.name
        if asked in self.merges and self.cut != asked:
            return
        if not self.merges:
            more = ", go on with --resume and a larger one" if status.startswith("--max") else ""
            raise InterruptedRunError(f"{status} before the first result; there is nothing to save yet{more}")
        scores = {
            name: self.outcomes[name, HELD_OUT].score for name in self.merges if (name, HELD_OUT) in self.outcomes
        }
        self.saved = max(reversed(scores), key=lambda name: scores[name]) if scores else next(reversed(self.merges))
        merged, meter, seconds = self.merges[self.saved]
        if self.evaluator is not None and self.saved == self.cut:  # the others have been measured when they ended
            self.merges[self.saved] = (self.evaluator.recalibrated(merged), meter, seconds)

    def _certify(self, merged: Merge) -> Merge:
        """The merge where the samples that selected nothing accept it, else the best single model."""
        task, candidate = self.plan.task, self.saved
        if task is None or task.certify is None or self.evaluator is None or "best" not in self.merges:
            return merged
        single = self.merges["best"][0]
        if candidate == "best" or not isinstance(single, Recipe):
            return merged
        self.progress.stage("certifying on held-out samples that selected nothing")
        before = self.outcomes["best", CERTIFY] = self.evaluator.record(single, CERTIFY)
        after = self.outcomes[candidate, CERTIFY] = self.evaluator.record(merged, CERTIFY)
        self.certificate = Certificate(after.samples, before.score, after.score, after.score > before.score)
        self.journal.write("certificate", **asdict(self.certificate))
        if self.certificate.accepted:
            return merged
        self.saved = "best"
        return single

    def _mix(self, strategy: MixStrategy) -> None:
        """Runs one strategy with a meter of its own; of one that is stopped, its own best so far is its merge."""
        began = time.perf_counter()
        total = self.evaluator.ledger.total.seconds if self.evaluator else 0.0
        meter = self.evaluator.ledger.begin() if self.evaluator else Meter()
        self.progress.say(strategy.label or strategy.name)
        search = self.rescoring.search if self.rescoring is not None and self.rescoring.due else ""
        tell_precision(self.progress, search)
        made = self.plan
        tell_measure(self.progress, made.objective.name)
        problem = self.session.problem(self._ranked)
        self.journal.write("strategy", name=strategy.name, options=strategy.options())
        if strategy is made.strategy:
            self.decisions, self.kept = problem.decisions, problem.kept
        found: tuple[Merge, Outcome | None] | None = None
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
            found = merged, outcome
        except (Stopped, KeyboardInterrupt):
            self.cut, found = strategy.name, problem.best
            raise
        finally:
            if problem.top is not None:
                self.top, self.top_name = problem.top, problem.top_name
            if found is not None:
                paid = self.evaluator.ledger.total.seconds - total if self.evaluator else 0.0
                own = max(time.perf_counter() - began - paid, 0.0) + meter.seconds
                self.merges[strategy.name] = (found[0], meter, own)
                if found[1] is not None:
                    self.outcomes[strategy.name, HELD_OUT] = found[1]

    def _ranked(self, name: str, outcome: Outcome) -> None:
        """Says which model is the best single one, once."""
        if self.top_name is None:
            self.top, self.top_name = outcome, name
            where = f" ({self.rescoring.search})" if self.rescoring is not None and self.rescoring.due else ""
            self.progress.say(f"  the best single model{where} is {name}, {self._shown(outcome)} held-out")

    def _shown(self, outcome: Outcome) -> str:
        return shown(outcome.score, self.plan.objective.name)

    def _score_all(self) -> None:
        """Every merge on every test set."""
        if self.evaluator is None or self.plan.task is None:
            return
        names = list(self.plan.task.tests) if self.plan.tests else []
        self.progress.stage("scoring the test sets", len(names) * len(self.merges))
        for strategy, (merged, _, _) in self.merges.items():
            for name in names:
                self.outcomes[strategy, name] = self.evaluator.record(merged, name)
                self.progress.advance()

    def report(self, written: Written, status: str, started: float) -> Report:
        """Everything that is known now."""
        merged = written.merge
        made, task = self.plan, self.plan.task
        asked = made.strategy.name
        total = self.evaluator.ledger.total if self.evaluator else Meter()
        rows = tuple(self._row(name) for name in self.merges if (name, "held-out") in self.outcomes)
        names = tuple(i.name for i in merged.ingredients) if isinstance(merged, Weights) else merged.names
        return Report(
            strategy=asked,
            options=made.strategy.options(),
            partitioner=made.partitioner.name,
            optimizer=made.optimizer.name,
            objective=made.objective.name,
            task=task.name if task else None,
            status=status,
            seed=made.seed,
            components=len(made.partition),
            active_components=len(made.partition.active),
            component_names=made.partition.names,
            top_single=self.top.score if self.top else None,
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
            rows=rows,
            verdicts=self._verdicts(),
            decisions=tuple(self.decisions),
            notes=self._notes(names, written.negative),
            certificate=self.certificate,
            inference_cost=_cost(merged),
            ensemble=isinstance(merged, Ensemble),
            saved=self.saved,
            best_single_name=self.top_name,
            measure=self.comparer.measure if self.comparer else made.objective.name,
            samples={split: outcome.samples for (_, split), outcome in self.outcomes.items()},
        )

    def _seen(self, name: str) -> dict[str, tuple[Outcome, ...]]:
        """A row's outcomes, by set."""
        return {split: (outcome,) for (strategy, split), outcome in self.outcomes.items() if strategy == name}

    def _verdicts(self) -> tuple[Verdict, ...]:
        """The strategy that was asked for against the best single model, on every set."""
        asked, task = self.plan.strategy.name, self.plan.task
        if self.comparer is None or task is None or asked == "best" or asked not in self.merges:
            return ()
        before, after = self._seen("best"), self._seen(asked)
        if self.top is not None:
            before.setdefault(HELD_OUT, (self.top,))
        sets = [HELD_OUT, *([CERTIFY] if CERTIFY in after else []), *(task.tests if self.plan.tests else ())]
        against = best_single(self.top_name)
        self.progress.stage("comparing with the best single model")
        told = self.comparer.verdicts(sets, before, after, reference="best", against=against)
        return corrected([told])[0]

    def _row(self, name: str) -> Row:
        merged, meter, seconds = self.merges[name]
        task = self.plan.task
        tests = {}
        for split in task.tests if task else ():
            outcome = self.outcomes.get((name, split))
            if outcome is not None:
                tests[split] = outcome.score
        shifted = average([tests[split] for split in (task.shifts if task else ()) if split in tests])
        names = tuple(i.name for i in merged.ingredients) if isinstance(merged, Weights) else merged.names
        return Row(
            name,
            self.labels[name],
            self.outcomes[name, "held-out"].score,
            tests,
            shifted,
            names,
            meter.evaluations,
            meter.cached,
            meter.forward_equivalents,
            seconds,
            _cost(merged),
            self.comparer.accuracies(self._seen(name)) if self.comparer else {},
            self.evaluator.keys.identity(merged) if self.evaluator else "",
        )

    def _unscored(self) -> list[str]:
        """For each strategy, the sets on which its model answers NaN, or its score is none."""
        found = []
        for name in self.merges:
            own = {split: outcome for (strategy, split), outcome in self.outcomes.items() if strategy == name}
            said = unscored(own, self.plan.objective.name)
            found += [f"{self.labels[name]}: {said}"] if said else []
        return found

    def _notes(self, ingredients: tuple[str, ...], negative: tuple[str, ...]) -> tuple[str, ...]:
        made = self.plan
        notes = [self.doubt] if self.doubt is not None else []
        notes += [negative_variance(negative)] if negative else []
        notes += [*self._unscored(), *self.remarks]
        again = self.rescoring
        if again is not None and again.due and not again.ranked and self.top_name is not None:
            notes.append(
                f"{self.top_name} is the best single model by {again.search} scores: the run was interrupted before "
                "all models were re-scored in fp32"
            )
        if self.cut is not None and self.cut in self.merges:
            notes.append(f"{self.labels[self.cut]} did not come to its end: its row is its best so far")
        notes += [*made.partition.notes, *made.notes]
        said = Counter(note for checkpoint in made.pool.checkpoints for note in checkpoint.notes)
        notes += [f"{note} ({count} checkpoint{'s' if count > 1 else ''})" for note, count in said.items()]
        notes += [f"{', '.join(group)} are the same weights" for group in made.pool.duplicates]
        if made.task is not None:
            for name, differ in made.pool.untuned.items():
                notes.append(
                    f"{name} keeps the base's weights but for {differ} of {len(made.pool.mixable)} tensors: an "
                    "initialisation or a linear probe, not a fine-tuned model"
                )
        if set(made.pool.names) == RELEASE:
            notes.append(
                "model_0 of the model-soups release is the linear-probe initialisation, not a fine-tuned model"
            )
        norms = [name.removesuffix(".running_mean") for name in made.pool.tensors if name.endswith(".running_mean")]
        measured = self.evaluator.keys.statistics if self.evaluator is not None else frozenset[str]()
        fresh = [name for name in norms if f"{name}.running_mean" in measured]
        rest = [name for name in norms if name not in fresh]
        calibration = self.evaluator.keys.calibration if self.evaluator is not None else None
        if fresh and len(ingredients) > 1 and calibration is not None:
            notes.append(
                f"BatchNorm statistics of {layers(fresh)} were measured again on {calibration.samples:,} "
                f"{'training' if calibration.split == 'train' else calibration.split} samples"
            )
        if rest and len(ingredients) > 1:
            data = made.task is not None and made.task.calibrates is not None
            way = "" if data else "; give training data ([task] train), or unlabelled, for that"
            notes.append(
                f"BatchNorm statistics of {layers(rest)} were averaged, not measured again on data: scores may "
                f"suffer{way}"
            )
        if made.task is not None:
            from merging.running.leaks import leaks

            notes += leaks(made.task, made.live.module if made.live is not None else None)
        if made.numerics is not None and made.numerics.remark is not None:
            notes.append(made.numerics.remark)
        if made.task is not None and len(made.task.held_out) < SMALL_SAMPLE:
            notes.append(
                f"only {len(made.task.held_out)} held-out samples: below {SMALL_SAMPLE:,} a gain is easily luck"
            )
        if made.task is not None and made.task.certify is not None and self.certificate is None:
            notes.append("not certified: the run ended before, or there was no merge to compare with a single model")
        return tuple(notes)


def _cost(merged: Merge) -> int:
    """Forward passes for each sample."""
    return len(merged.members) if isinstance(merged, Ensemble) else 1

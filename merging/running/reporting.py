"""What is told of a run: its report, with a row for each strategy and the verdicts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from merging.evaluation.comparing import Comparer
from merging.machine import peak_memory
from merging.mixing.writing import Written
from merging.plugins.progress import Progress
from merging.plugins.task import CERTIFY, HELD_OUT, Task
from merging.running.found import Found
from merging.running.notes import notes
from merging.running.plan import Plan, versions
from merging.running.pool_scores import leaderboard
from merging.values.outcome import Meter, Outcome
from merging.values.recipe import Ensemble, inference_cost
from merging.values.report import Report, Row, average, best_single
from merging.values.spread import spread_of
from merging.values.verdict import Verdict, corrected, unselected
from merging.values.workers import WorkerFacts

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.storage.pool import ModelPool


def report_of(
    made: Plan,
    found: Found,
    written: Written,
    evaluator: Evaluator | None,
    progress: Progress,
    started: float,
    workers: tuple[WorkerFacts, ...] = (),
) -> Report:
    """Everything that is known of a run.

    Args:
        made: its plan.
        found: what it has found.
        written: what was written of that.
        evaluator: its door; None where nothing was scored.
        progress: told that models are compared.
        started: ``time.time()`` of its start.
        workers: workers that have made its passes.
    """
    merged, task = written.merge, made.task
    comparer = Comparer(made.objective, task) if task is not None and evaluator is not None else None
    total = evaluator.ledger.total if evaluator is not None else Meter()
    return Report(
        strategy=made.strategy.name,
        options=made.strategy.options(),
        partitioner=made.partitioner.name,
        optimizer=made.optimizer.name,
        objective=made.objective.name,
        task=task.name if task else None,
        state=found.state,
        limit=found.limit,
        seed=made.settings.search.seed,
        components=len(made.partition),
        active_components=len(made.partition.active),
        component_names=made.partition.names,
        top_single=found.single[1].score if found.single else None,
        pool=made.pool.names,
        ingredients=merged.names,
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
        rows=_rows(task, found, comparer, evaluator, made.pool),
        verdicts=_verdicts(made, found, comparer, progress),
        decisions=tuple(found.decisions),
        notes=notes(made, found, evaluator, merged.names, written.negative),
        certificate=found.certificate,
        inference_cost=inference_cost(merged),
        ensemble=isinstance(merged, Ensemble),
        saved=found.saved,
        doubt=found.doubt or "",
        best_single_name=found.single[0] if found.single else None,
        measure=comparer.measure if comparer else made.objective.name,
        leaderboard=leaderboard(made, found),
        samples={split: outcome.samples for (_, split), outcome in found.outcomes.items()},
        workers=workers,
    )


def _rows(
    task: Task | None,
    found: Found,
    comparer: Comparer | None,
    evaluator: Evaluator | None,
    pool: ModelPool,
) -> tuple[Row, ...]:
    """A row for each strategy whose merge was scored."""
    if task is None or comparer is None or evaluator is None:
        return ()
    rows = []
    for name in found.scored:
        made, seen = found.merges[name], found.seen(name)
        tests = {split: seen[split][0].score for split in task.tests if split in seen}
        rows.append(
            Row(
                strategy=name,
                label=made.label,
                held_out=seen[HELD_OUT][0].score,
                tests=tests,
                shifted=average([tests[split] for split in task.shifts if split in tests]),
                ingredients=made.merge.names,
                evaluations=made.meter.evaluations,
                cached=made.meter.cached,
                forward_equivalents=made.meter.forward_equivalents,
                seconds=made.seconds,
                inference_cost=inference_cost(made.merge),
                accuracies=comparer.accuracies(seen),
                digest=evaluator.keys.identity(made.merge),
                coefficients=spread_of(made.merge, pool.tensors, pool.names),
            )
        )
    return tuple(rows)


def _verdicts(made: Plan, found: Found, comparer: Comparer | None, progress: Progress) -> tuple[Verdict, ...]:
    """The strategy that was asked for against the best single model, on every set."""
    asked, task = made.strategy.name, made.task
    if comparer is None or task is None or asked == "best" or asked not in found.merges:
        return ()
    after = found.seen(asked)
    name, outcome = found.single or (None, None)
    alone = found.singles.items()
    before: dict[str, tuple[Outcome, ...]] = {split: (seen,) for (model, split), seen in alone if model == name}
    before |= {HELD_OUT: (outcome,)} if outcome is not None else {}  # of record, where a search's has no terms
    before |= found.seen("best")
    sets = [HELD_OUT, *([CERTIFY] if CERTIFY in after else []), *(task.tests if made.settings.rules.tests else ())]
    if before:
        progress.stage(f"comparing with {best_single(name)}")
    told = comparer.verdicts(sets, before, after, reference="best", against=best_single(name))
    return unselected(corrected([told])[0], selected=found.merges[asked].selected)

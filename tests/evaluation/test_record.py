"""Outcomes of record: fp32 whatever a search runs in, counted nowhere, journalled, with what a paired test needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from merging.errors import Stopped
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.objective import Objective
from merging.plugins.task import CERTIFY, HELD_OUT
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.testing import tiny_task
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble, Merge, Recipe


def evaluator(
    pool: ModelPool,
    objective: Objective | None = None,
    precision: str = "bf16",
    journal: Journal | None = None,
    **more: object,
) -> Evaluator:
    task = tiny_task().certified(0.5, 0)
    made = plan(pool, Uniform(), partitioner=Layer(), task=task, objective=objective, precision=precision)
    assert made.live is not None
    assert made.numerics is not None
    assert made.task is not None
    ledger = Ledger(journal or Journal(None), **more)  # type: ignore[arg-type]
    return Evaluator.over(made.live, made.task, made.objective, made.numerics, ledger)


def merges(pool: ModelPool, partition: object) -> list[Merge]:
    singles = [Recipe.single(row, partition) for row in pool.ingredients[:3]]  # type: ignore[arg-type]
    mean = Recipe.mean(pool.ingredients, partition)  # type: ignore[arg-type]
    return [
        singles[0],
        mean,
        Ensemble((singles[0], mean), (1.0, 2.0), "logits"),
        Ensemble(tuple(singles), (1.0,) * 3, "probabilities"),
    ]


def same(one: Outcome, two: Outcome) -> bool:
    return one.score == two.score and np.array_equal(one.correct, two.correct)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", [HELD_OUT, CERTIFY, "test"])
@pytest.mark.parametrize("objective", [Accuracy(), NegativeLogLikelihood()], ids=lambda o: o.name)
def test_the_record_of_a_bf16_run_is_that_of_an_fp32_one(pool: ModelPool, objective: Objective, split: str) -> None:
    brief, exact = evaluator(pool, objective), evaluator(pool, objective, "fp32")
    assert brief.scorer.live.dtype == torch.bfloat16
    for merged in merges(pool, exact.keys.partition):
        found, wanted = brief.record(merged, split), exact.evaluate(merged, split)
        assert same(found, wanted)
        assert same(found, exact.record(merged, split))
        assert brief.scorer.live.dtype == torch.bfloat16, "the search goes on as it was"
        if objective.counts_hits:
            assert found.terms is None
        else:
            assert found.terms is not None
            assert found.terms.shape == (found.samples,)
            assert found.score == pytest.approx(float(np.mean(found.terms, dtype=np.float64)), abs=1e-12)


def test_a_record_is_no_evaluation_of_the_search(pool: ModelPool) -> None:
    made = evaluator(pool, limit=1)
    meter = made.ledger.begin()
    one, two, *_ = merges(pool, made.keys.partition)
    made.evaluate(one)
    total = made.ledger.total
    before = total.evaluations, total.forward_equivalents, meter.evaluations, meter.cached
    for merged in (one, two, one):
        made.record(merged)
    assert (total.evaluations, total.forward_equivalents, meter.evaluations, meter.cached) == before
    with pytest.raises(Stopped, match="max-evaluations 1"):
        made.evaluate(two)


def test_an_fp32_search_by_accuracy_is_its_own_record(pool: ModelPool) -> None:
    made = evaluator(pool, precision="fp32")
    for merged in merges(pool, made.keys.partition):
        assert made.record(merged, "test") is made.evaluate(merged, "test")
        seen = made.evaluate(merged)
        assert made.record(merged) is seen


class NoScorer:
    """Fails where a pass is asked for."""


def test_a_record_is_read_back_from_the_journal(pool: ModelPool, tmp_path: Path) -> None:
    found = {}
    for resume in (False, True):
        with Journal(tmp_path / "events.jsonl", resume=resume) as journal:
            made = evaluator(pool, NegativeLogLikelihood(), journal=journal)
            if resume:
                made = Evaluator(made.keys, made.ledger, NoScorer(), made.gradients)  # type: ignore[arg-type]
            found[resume] = [made.record(merged) for merged in merges(pool, made.keys.partition)]
    for one, two in zip(found[False], found[True], strict=True):
        assert same(one, two)
        assert np.array_equal(one.terms, two.terms)  # type: ignore[arg-type]


def test_a_record_changes_nothing_that_the_search_sees(pool: ModelPool) -> None:
    plain, busy = evaluator(pool, NegativeLogLikelihood()), evaluator(pool, NegativeLogLikelihood())
    one, two = (Recipe.single(row, plain.keys.partition) for row in pool.ingredients[:2])
    for factor in (0.2, 0.5, 0.9):
        scores = []
        for made in (plain, busy):
            if made is busy:
                made.record(two)
            scores.append(made.between(one, two, "lerp")(np.full(len(made.keys.partition), factor)).score)
        assert scores[0] == scores[1]

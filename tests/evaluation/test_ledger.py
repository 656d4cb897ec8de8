"""The real door and ledger over a scorer of the test's own: no model runs, nothing is subclassed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from merging.benchmarking.memory import Memory
from merging.errors import FolderError, Stopped
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.keys import Keys, Trial
from merging.evaluation.ledger import Ledger, Log
from merging.evaluation.scorer import Wanted
from merging.partitioners.layer import Layer
from merging.plugins.strategy import MixStrategy, mixed
from merging.plugins.task import HELD_OUT
from merging.plugins.user_code import PluginError
from merging.plugins.watcher import Watcher
from merging.running.plan import Plan, plan
from merging.running.session import Session
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.strategies.greedy_ensemble import GreedyEnsemble
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import tiny_pool, tiny_problem, tiny_task
from merging.values.outcome import Decision, Meter, Outcome
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

PASS = 0.75
"""What a pass of :class:`Dictated` costs, as a share of a whole one."""


class Dictated:
    """A scorer whose scores follow from keys alone, and which counts what it is asked for."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.asked: list[str] = []

    def check_labels(self, names: Sequence[str]) -> None:
        pass

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        self.asked.append(split)
        keys = self._keys
        key = keys.trial(model) if isinstance(model, Trial) else keys.evaluation(model, split, record=record)
        return Outcome(score=int(key[:8], 16) / 16**8, samples=120, seconds=2.0, passes=PASS)

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        return torch.full((120, 3), self.measure(recipe, split, record=record).score), 1.0

    def of_logits(self, logits: Tensor, split: str, *, record: bool = False) -> Outcome:
        return Outcome(score=float(logits.double().mean()), samples=120)

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        """Sees a quarter of the samples of what is refused, and of what is not all."""
        outcome = self.measure(model, HELD_OUT)
        if bar.cleared(outcome.score):
            return bar.of(outcome), outcome.seconds
        return Decision(False, 30, (0.0, bar.threshold - 0.01), 0.25), 0.5

    def measured(self, merged: Recipe | Weights) -> tuple[dict[str, Tensor], float]:
        return {}, 0.0

    foresees = False

    def foresee(self, wanted: Iterable[Wanted], *, first: bool = False) -> None:
        """Makes nothing beforehand."""


class Witness:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, float]] = []

    def saw(self, outcome: Outcome, meter: Meter) -> None:
        self.seen.append((outcome.score, meter.evaluations, meter.forward_equivalents))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"))


def planned(pool: ModelPool, strategy: MixStrategy, **settings: Any) -> Plan:
    return plan(pool, strategy, partitioner=Layer(), task=tiny_task(), device="cpu", **settings)


@pytest.fixture(scope="module")
def made(pool: ModelPool) -> Plan:
    return planned(pool, Greedy())


def door(made: Plan, journal: Log | None = None, **how: Any) -> Session:
    """A session over a dictated scorer."""
    session = Session.open(made, journal, **how)
    real = session.evaluator
    assert real is not None
    dictated = Evaluator(real.keys, real.ledger, Dictated(real.keys), real.gradients)
    return dataclasses.replace(session, evaluator=dictated)


def limited(made: Plan, limit: int | None) -> Plan:
    return dataclasses.replace(made, settings=made.settings.changed({"max_evaluations": limit}))


def asked(session: Session) -> list[str]:
    assert session.evaluator is not None
    scorer = session.evaluator.scorer
    assert isinstance(scorer, Dictated)
    return scorer.asked


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["single", "mean", "ensemble", "test", "trial", "logits", "record", "begin", "exceeds"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


def take(evaluator: Evaluator, pool: ModelPool, step: tuple[str, int, int]) -> tuple[str, float] | None:
    """One step of a search; the key and the score of what a strategy is told of the held-out data."""
    kind, one, two = step
    keys, partition = evaluator.keys, evaluator.keys.partition
    first, second = (Recipe.single(pool.ingredients[i], partition) for i in (one, two))
    merged: Merge = first if kind != "mean" else first.lerp(second, 0.5)
    if kind == "ensemble":
        merged = Ensemble((first, second), (1.0, 1.0), "logits")
    if kind == "trial":
        factors = np.full(len(partition), 0.25)
        trial = Trial(
            incumbent=first,
            candidate=second,
            mixing="lerp",
            factors=factors,
            ends=keys.ends(first, second, "lerp"),
        )
        return keys.trial(trial), evaluator.between(first, second, "lerp")(factors).score
    if kind == "test":
        evaluator.evaluate(first, "test")
    elif kind == "record":
        evaluator.record(first)
    elif kind == "begin":
        evaluator.ledger.begin()
    elif kind == "logits":
        evaluator.outputs.logits(first)
    elif kind == "exceeds":
        seen = evaluator.exceeds(first, Bar(0.5)).outcome
        return (keys.evaluation(first), seen.score) if seen is not None else None
    else:
        return keys.evaluation(merged), evaluator.evaluate(merged).score
    return None


@given(steps=STEPS)
def test_an_observer_sees_what_a_strategy_sees(pool: ModelPool, made: Plan, steps: list[tuple[str, int, int]]) -> None:
    """Every held-out outcome that is handed out, with the meter as it is then; no logits, records, tests, test sets."""
    watcher, told = Witness(), []
    evaluator = door(made, observers=(watcher,)).evaluator
    assert evaluator is not None
    for step in steps:
        found = take(evaluator, pool, step)
        meter = evaluator.ledger.meter
        told += [(found[1], meter.evaluations, meter.forward_equivalents)] if found is not None else []
    assert watcher.seen == told


class Tired:
    """An observer that raises at the third outcome."""

    def __init__(self, error: Exception) -> None:
        self.error, self.seen = error, 0

    def saw(self, outcome: Outcome, meter: Meter) -> None:
        self.seen += 1
        if self.seen == 3:
            raise self.error


def test_an_observer_that_fails_is_named_itself(made: Plan) -> None:
    session = door(made, observers=(Tired(ValueError("enough")),))
    with pytest.raises(PluginError, match=r"^observer 'Tired' failed: ValueError: enough \(at .*test_ledger.py:\d+\)$"):
        mixed(Greedy(), session.problem(Greedy()))


def test_an_observer_may_end_the_run(made: Plan) -> None:
    session = door(made, observers=(Tired(Stopped()),))
    with pytest.raises(Stopped):
        mixed(Greedy(), session.problem(Greedy()))
    assert session.evaluator is not None
    assert session.evaluator.ledger.total.evaluations == 3


@given(steps=STEPS, exact=st.booleans())
def test_each_distinct_evaluation_is_made_and_counted_once(
    pool: ModelPool, made: Plan, steps: list[tuple[str, int, int]], exact: bool
) -> None:
    """Against two sets of the test's own: keys in all, and keys since the strategy began."""
    session = door(dataclasses.replace(made, settings=made.settings.changed({"exact_savings": exact})))
    evaluator = session.evaluator
    assert evaluator is not None
    total, own, told = set[str](), set[str](), 0
    for step in steps:
        if step[0] in ("ensemble", "logits", "record", "exceeds", "test"):
            continue
        found = take(evaluator, pool, step)
        own = own if found is not None else set()
        if found is not None:
            total.add(found[0])
            own.add(found[0])
            told += 1
        assert (evaluator.ledger.total.evaluations, evaluator.ledger.meter.evaluations) == (len(total), len(own))
        assert evaluator.ledger.total.cached == told - len(total)
        assert len(asked(session)) == (len(total) if exact else told)
        assert evaluator.ledger.total.forward_equivalents == PASS * len(asked(session))
        assert evaluator.ledger.meter.forward_equivalents == PASS * len(own)


@given(steps=STEPS, limit=st.integers(1, 6))
def test_the_limit_ends_the_search(pool: ModelPool, made: Plan, steps: list[tuple[str, int, int]], limit: int) -> None:
    """At the limit nothing new is made; an ensemble whose last member reaches it is still scored."""
    evaluator = door(limited(made, limit)).evaluator
    assert evaluator is not None
    total = evaluator.ledger.total
    for step in steps:
        before = total.evaluations
        try:
            take(evaluator, pool, step)
        except Stopped:
            assert total.evaluations == limit or before > limit
        if step[0] != "ensemble":
            assert total.evaluations <= max(before, limit)
        assert total.evaluations <= limit + 1


STRATEGIES = [
    Greedy(),
    Greedy(early=True),
    Greedy(early=True, order="random"),
    ManifoldMix(budget=5),
    ManifoldMix(budget=5, early=True),
    GreedyEnsemble(),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@settings(max_examples=8)
@given(data=st.data())
def test_a_journal_is_gone_on_with(pool: ModelPool, strategy: MixStrategy, tmp_path: Path, data: st.DataObject) -> None:
    """A strategy that was cut short anywhere ends as the one that was not, and asks the scorer for the rest alone."""
    made = planned(pool, strategy)
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()

    def mix(limit: int | None, path: Path, *, resume: bool) -> tuple[list[str], Any, list[dict[str, Any]]]:
        with Journal(path, resume=resume) as journal:
            session = door(limited(made, limit), journal)
            try:
                merged = strategy.mix(session.problem())
            except Stopped:
                return asked(session), None, []
        return asked(session), merged, [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    whole, wanted, events = mix(None, folder / "whole.jsonl", resume=False)
    cut = data.draw(st.integers(1, sum(event["event"] in ("evaluation", "test") for event in events) - 1))
    first, nothing, _ = mix(cut, folder / "cut.jsonl", resume=False)
    assert nothing is None
    rest, found, again = mix(None, folder / "cut.jsonl", resume=True)
    assert [event.get("key") for event in again] == [event.get("key") for event in events]
    assert found.names == wanted.names
    if isinstance(found, Recipe):
        assert np.array_equal(found.coefficients, wanted.coefficients)
        if strategy.name == "greedy":  # logits are made again; they are in no journal
            assert len(first) + len(rest) == len(whole)


def test_a_memory_shares_what_methods_have_measured(pool: ModelPool, made: Plan, tmp_path: Path) -> None:
    """Each session counts for itself; what one has measured, in whatever order, the scorer of no other is asked for."""
    path = tmp_path / "evaluations.jsonl"
    counts, spent, passes = [], [], []
    for order in ((0, 1), (1, 0, 2)):
        with Memory(path) as memory:
            memory.write("benchmark")
            session = door(made, memory)
            evaluator = session.evaluator
            assert evaluator is not None
            for index in order:
                evaluator.evaluate(Recipe.single(pool.ingredients[index], made.partition))
            counts.append(evaluator.ledger.total.evaluations)
            spent.append(evaluator.ledger.spent)
            passes.append(len(asked(session)))
            assert memory.evaluations == len({*order})
    assert (counts, spent, passes) == ([2, 3], [4.0, 2.0], [2, 1])


def test_a_file_that_is_no_memory_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.write("run")
    with pytest.raises(FolderError, match="does not begin with a benchmark"):
        Memory(path)
    Journal(path, resume=True).__exit__(None, None, None)  # nobody holds the folder any more


def test_who_is_asked_to_stop_may_be_let_finish(pool: ModelPool, made: Plan) -> None:
    evaluator = door(made, watcher=Watcher(should_stop=lambda: True)).evaluator
    assert evaluator is not None
    one = Recipe.single(pool.ingredients[0], made.partition)
    for ask in (evaluator.evaluate, evaluator.record, lambda merged, split: evaluator.outputs.logits(merged, split)):
        with pytest.raises(Stopped, match="interrupted"):
            ask(one, HELD_OUT)
    with evaluator.ledger.unhurried():
        assert evaluator.evaluate(one).samples == 120
    with pytest.raises(Stopped, match="interrupted"):
        evaluator.ledger.check()


def test_seeds_say_whether_they_were_used(pool: ModelPool) -> None:
    draws: Iterator[tuple[MixStrategy, bool]] = iter(
        [(Greedy(), False), (Greedy(order="random"), True), (ManifoldMix(budget=3), True)]
    )
    for strategy, used in draws:
        problem = tiny_problem(pool)
        strategy.mix(problem)
        assert problem.seeds.used == used, strategy


def test_a_ledger_needs_nothing_but_keys(made: Plan) -> None:
    """Memory, counts and limit, with no evaluator around."""
    del made
    ledger = Ledger(Journal(None), limit=2)
    outcome = Outcome(score=0.5, samples=10, seconds=1.0, passes=0.25)
    assert ledger.through("a", HELD_OUT, lambda: outcome) is outcome
    assert ledger.through("a", HELD_OUT, lambda: pytest.fail("known")) is outcome
    ledger.begin()
    assert ledger.through("a", HELD_OUT, lambda: pytest.fail("known")) is outcome
    assert ledger.meter == Meter(1, 0, 0.25, 1.0)
    assert ledger.total == Meter(1, 2, 0.25, 1.0)
    ledger.through("b", HELD_OUT, lambda: outcome)
    assert ledger.through("c", "test", lambda: outcome) is outcome, "test sets have no limit"
    with pytest.raises(Stopped, match="max-evaluations 2"):
        ledger.through("d", HELD_OUT, lambda: outcome)

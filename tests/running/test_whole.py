"""Strategies that take gradients run whole on a worker: journal, decisions and bits are those of a run without one."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.evaluation.gradients import LiveGradients
from merging.evaluation.scorer import LiveScorer
from merging.evaluation.workers.crew import Crew
from merging.plugins.discovery import load_file
from merging.plugins.progress import Silent
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.plugins.user_code import PluginError
from merging.plugins.watcher import Watcher, never
from merging.running.crew import hired
from merging.running.execution import Execution
from merging.running.found import Found
from merging.running.plan import plan
from merging.running.session import Session
from merging.storage.content import content_hash
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.fisher import Fisher
from merging.strategies.learned import Learned
from merging.testing import tiny_pool, tiny_task
from merging.values.recipe import Recipe, Weights
from tests.golden.kinds import Normed

OWN = '''
import os, signal
from dataclasses import dataclass
import numpy as np
from merging import MixStrategy, option
from merging.plugins.registry import strategies
from merging.values.recipe import Ensemble


@strategies.register("all-of-it")
@dataclass(frozen=True, kw_only=True)
class AllOfIt(MixStrategy):
    """Asks for everything that a problem has."""

    summary = "all that a problem has"
    needs = frozenset({"model", "objective", "gradients", "classes"})
    fails: str = option("", "how it ends")

    def mix(self, problem):
        problem.progress.stage("all of it", 3)
        ranking = problem.rank()
        order = [index for index, _ in ranking]
        drawn = problem.generator.permutation(len(order))
        pair = Ensemble((problem.single(order[0]), problem.mean(order)), (1.0, 2.0))
        found = problem.evaluate(pair)
        problem.decide(ensemble=found.score, drawn=[int(each) for each in drawn])
        bar = ranking[0][1].score
        tests = [problem.scores.exceeds(problem.mean([0, k]), bar) for k in (1, 2, 3)]
        problem.decide(above=[bool(each.exceeds) for each in tests], passes=[each.passes for each in tests])
        logits = problem.scores.logits(problem.mean([0, 1]))
        problem.decide(score=problem.scores.score(logits), loss=float(logits.double().sum()))
        first, second = problem.single(order[0]), problem.single(order[1])
        path = problem.search.between(first, second)
        columns = list(problem.partition.active)

        def look(point):
            factors = np.ones(len(problem.partition))
            factors[columns] = point
            return path(factors)

        best = problem.search.maximize(
            look, lower=np.zeros(len(columns)), upper=np.ones(len(columns)), start=np.full(len(columns), 0.5), budget=6
        )
        problem.decide(best=best.score, at=[float(each) for each in best.x])
        blend = problem.slopes.blend([first, second])
        table = np.full((2, len(problem.partition)), 0.5)
        for batch in problem.slopes.batches("train", problem.generator, 50):
            loss, slopes, _ = blend.gradient(table, batch)
            table = table - 0.01 * slopes
            problem.decide(loss=loss)
            problem.progress.advance()
        if self.fails == "error":
            raise ValueError("it will not go on")
        if self.fails == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        merged = problem.mean(order[:2])
        outcome = problem.evaluate(merged)
        problem.keep(merged, outcome)
        return merged
'''


@dataclass
class Heard(Silent):
    """Keeps what was said, and does something when it hears a decision."""

    said: list[str] = field(default_factory=list)
    on_decision: Callable[[], None] = lambda: None

    def say(self, text: str) -> None:
        """Keeps a line."""
        self.said.append(text)

    def decision(self, facts: object) -> None:
        """Does what was wanted."""
        del facts
        self.on_decision()


class Pools:
    """A pool of four tiny models, and one with BatchNorm."""

    def __init__(self, folder: Path) -> None:
        self.tiny = tiny_pool(folder / "tiny"), tiny_task()
        (folder / "normed").mkdir()
        for number in range(3):
            torch.manual_seed(number)
            module = Normed().train()
            with torch.no_grad():
                module(tiny_task().held_out.inputs + number)
            torch.save(module.state_dict(), folder / "normed" / f"m{number}.pt")
        own = tiny_task()
        task = Task(name="normed", build=lambda pool: Normed(), held_out=own.held_out, train=own.train)
        self.normed = ModelPool.open([folder / "normed"]), task


@pytest.fixture(scope="session")  # a name is registered once, and a module of tests may be gone back to
def pools(tmp_path_factory: pytest.TempPathFactory) -> Pools:
    folder = tmp_path_factory.mktemp("pools")
    (folder / "own.py").write_text(textwrap.dedent(OWN), encoding="utf-8")
    load_file(folder / "own.py")
    return Pools(folder)


@pytest.fixture(scope="module")
def two(pools: Pools) -> Iterator[Crew]:
    """A crew of two, for all tests of this file."""
    pool, task = pools.tiny
    with hired(plan(pool, "uniform", task=task, threads=1, workers=2), None, Watcher()) as crew:
        assert crew is not None
        yield crew


def ran(
    given: tuple[ModelPool, Task],
    strategy: MixStrategy,
    folder: Path,
    crew: Crew | None,
    progress: Silent | None = None,
    should_stop: Callable[[], bool] = never,
    **settings: Any,
) -> tuple[Found, list[dict[str, Any]]]:
    """A run, and its journal without times."""
    made = plan(given[0], strategy, task=given[1], threads=1, partitioner="layer", optimizer="random", **settings)
    file = folder / f"{'with' if crew else 'without'}.jsonl"
    with Journal(file, resume=file.exists()) as journal, made.numerics.applied():
        session = Session.open(
            made, journal, Watcher(progress=progress or Silent(), should_stop=should_stop), crew=crew
        )
        found = Execution(session).execute()
        found.decisions.append({"total": session.evaluator.ledger.total.forward_equivalents})
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found, [{k: v for k, v in event.items() if k not in ("seconds", "time")} for event in events]


def bits(merged: Recipe | Weights) -> str:
    if isinstance(merged, Weights):
        assert content_hash(merged.tensors) == merged.hash
        return merged.hash
    return repr((merged.key(), content_hash(merged.overrides)))


def check_same(found: tuple[Found, list[dict[str, Any]]], wanted: tuple[Found, list[dict[str, Any]]]) -> None:
    assert found[1] == wanted[1]
    assert found[0].decisions == wanted[0].decisions
    assert found[0].state == wanted[0].state
    assert list(found[0].merges) == list(wanted[0].merges)
    for name, made in wanted[0].merges.items():
        assert bits(found[0].merges[name].merge) == bits(made.merge)
        assert found[0].merges[name].selected == made.selected
        for meter in ("evaluations", "cached", "forward_equivalents"):
            assert getattr(found[0].merges[name].meter, meter) == getattr(made.meter, meter)
    assert [outcome.score for _, outcome in found[0].kept] == [outcome.score for _, outcome in wanted[0].kept]
    assert (found[0].single or ("",))[0] == (wanted[0].single or ("",))[0]


@pytest.fixture
def no_passes_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has this process refuse passes and gradients from now on."""

    def refused(*given: object, **named: object) -> None:
        raise AssertionError("the driver makes a pass")

    def now() -> None:
        for owner, names in (
            (LiveGradients, ("blend", "squared_gradients", "gradient")),
            (LiveScorer, ("measure", "logits", "exceeds")),
        ):
            for name in names:
                monkeypatch.setattr(owner, name, refused)

    return now


CASES = {
    "learned": lambda: Learned(epochs=2),
    "affine": lambda: Learned(profile="affine", steps=4, block=2),
    "fisher": lambda: Fisher(samples=40, draws=3),
    "third party's": lambda: strategies["all-of-it"](),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_on_workers_is_that_of_one_process(
    name: str, pools: Pools, two: Crew, tmp_path: Path, no_passes_here: Callable[[], None]
) -> None:
    wanted = ran(pools.tiny, CASES[name](), tmp_path, None)
    no_passes_here()
    check_same(ran(pools.tiny, CASES[name](), tmp_path, two), wanted)


@pytest.mark.parametrize("name", ["learned", "fisher"])
def test_statistics_that_are_measured_again(name: str, pools: Pools, two: Crew, tmp_path: Path) -> None:
    wanted = ran(pools.normed, CASES[name](), tmp_path, None)
    merged = wanted[0].merge
    assert merged.overrides if isinstance(merged, Recipe) else merged.measured
    check_same(ran(pools.normed, CASES[name](), tmp_path, two), wanted)


@pytest.mark.parametrize("limit", [5, 9, 14])
def test_a_limit_ends_it_at_the_same_place(limit: int, pools: Pools, two: Crew, tmp_path: Path) -> None:
    strategy = CASES["third party's"]()
    wanted = ran(pools.tiny, strategy, tmp_path, None, baselines=False, max_evaluations=limit)
    check_same(ran(pools.tiny, strategy, tmp_path, two, baselines=False, max_evaluations=limit), wanted)
    assert wanted[0].limit == limit


def test_what_a_strategy_raises_is_said_as_without_workers(pools: Pools, two: Crew, tmp_path: Path) -> None:
    said = []
    for crew in (None, two):
        with pytest.raises(PluginError) as failed:
            ran(pools.tiny, strategies["all-of-it"](fails="error"), tmp_path, crew)
        said.append(str(failed.value))
    assert said[0] == said[1]
    assert "it will not go on (at " in said[0]


def test_one_worker_is_enough_and_is_killed_in_the_middle(pools: Pools, two: Crew, tmp_path: Path) -> None:
    strategy, heard, killed = CASES["third party's"](), Heard(), list[int]()
    wanted = ran(pools.tiny, strategy, tmp_path, None)

    def kill() -> None:
        if not killed:
            killed.append(int(two.backend.place(0).split()[-1]))
            os.kill(killed[0], signal.SIGKILL)

    heard.on_decision = kill
    two.progress, two.members[1].gone, two.members[1].facts = heard, True, None
    check_same(ran(pools.tiny, strategy, tmp_path, two, heard), wanted)
    assert killed
    assert "killed by SIGKILL" in " ".join(heard.said)


def test_a_run_that_was_stopped_goes_on(pools: Pools, two: Crew, tmp_path: Path) -> None:
    strategy, wanted = CASES["third party's"](), ran(pools.tiny, CASES["third party's"](), tmp_path, None)
    heard, decided = Heard(), list[bool]()
    heard.on_decision = lambda: decided.append(True)
    found, _ = ran(pools.tiny, strategy, tmp_path, two, heard, lambda: len(decided) > 5)
    assert found.interrupted
    assert found.cut == "all-of-it"
    check_same(ran(pools.tiny, strategy, tmp_path, two), wanted)

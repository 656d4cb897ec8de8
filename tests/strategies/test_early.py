"""With ``early`` a strategy decides as it does by whole scores, to the last bit, and looks at fewer samples."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import merging
from merging.benchmarking.memory import Memory
from merging.errors import FolderError, Stopped
from merging.forward.numerics import Numerics
from merging.objectives.brier import BrierScore
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.rehearsal import rehearse
from merging.running.session import Session
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import blobs, tiny_pool, tiny_task
from merging.values.recipe import Recipe

STRATEGIES = [
    Greedy(),
    Greedy(accept_ties=True),
    Greedy(order="random", orders=2),
    ManifoldMix(),
    ManifoldMix(barrier=None, tau=0.95),
    ManifoldMix(profile="reference"),
]
NUMERICS = Numerics(device="cpu", batch=8, threads=1)
OF_AVERAGES = ("average", "average_at_least", "average_at_most", "samples_seen")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five models of one start, and two that are far from it: their averages are refused."""
    folder = tmp_path_factory.mktemp("pool")
    tiny_pool(folder, models=5)
    for number in (5, 6):
        generator = torch.Generator().manual_seed(number)
        state = load_file(folder / f"model_{number - 5}.safetensors")
        noisy = {n: t + torch.randn(t.shape, generator=generator) for n, t in state.items() if t.is_floating_point()}
        save_file(state | noisy, folder / f"model_{number}.safetensors")
    return folder


def early(strategy: MixStrategy) -> MixStrategy:
    return dataclasses.replace(strategy, early=True)  # type: ignore[call-arg]


def few(samples: int, seed: int) -> Task:
    """A task with few held-out samples, on which many averages score the same."""
    return dataclasses.replace(tiny_task(), held_out=blobs(samples, seed))


def decided(decisions: Any) -> list[dict[str, Any]]:
    """Decisions without what is known of the averages' scores."""
    return [{key: fact for key, fact in facts.items() if key not in OF_AVERAGES} for facts in decisions]


def agree(whole: Mapping[str, Any], tested: Mapping[str, Any]) -> bool:
    """Whether what a test knows of an average is true of its score."""
    score = whole["average"]
    if "average" in tested:
        return bool(tested["average"] == score)
    return bool(tested.get("average_at_least", -np.inf) <= score <= tested.get("average_at_most", np.inf))


def mix(
    pool: ModelPool, strategy: MixStrategy, task: Task, batch: int, dtype: str = "float32", **how: Any
) -> tuple[Recipe, MergeProblem]:
    numerics = Numerics(device="cpu", batch=batch, threads=1, dtype=dtype)
    made = plan(
        pool, strategy, partitioner=Layer(), task=task, device="cpu", budget=6, measured=numerics, tune=True, **how
    )
    problem = Session.open(made).problem(strategy)
    merged = strategy.mix(problem)
    assert isinstance(merged, Recipe)
    return merged, problem


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@settings(max_examples=8)
@given(data=st.data())
def test_random_pools_are_decided_the_same(folder: Path, strategy: MixStrategy, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=6, unique=True))
    pool = ModelPool.open([folder / f"model_{number}.safetensors" for number in chosen])
    task = few(data.draw(st.integers(7, 90)), data.draw(st.integers(1, 50)))
    objective = data.draw(
        st.sampled_from([merging.Accuracy(), merging.Accuracy(), BrierScore(), NegativeLogLikelihood()])
    )
    how: dict[str, Any] = {
        "batch": data.draw(st.sampled_from([1, 8, 64])),
        "objective": objective,
        "seed": data.draw(st.integers(0, 9)),
    }
    whole, by_scores = mix(pool, strategy, task, **how)
    found, by_tests = mix(pool, early(strategy), task, **how)
    assert found.names == whole.names
    assert np.array_equal(found.coefficients, whole.coefficients)
    assert decided(by_tests.decisions) == decided(by_scores.decisions)
    candidates = [pair for pair in zip(by_scores.decisions, by_tests.decisions, strict=True) if "candidate" in pair[0]]
    assert all(agree(*pair) for pair in candidates)
    assert [(o.score, r.names) for r, o in by_tests.kept] == [(o.score, r.names) for r, o in by_scores.kept]
    totals = [problem.evaluator.ledger.total for problem in (by_scores, by_tests)]
    assert totals[0].evaluations == totals[1].evaluations, "a test counts as the evaluation that it stands for"


class Chain(nn.Sequential):
    """A model with statistics, which are measured again for every average before it is tested."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=repr)
def test_statistics_and_precision_are_those_of_whole_passes(strategy: MixStrategy, dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = Chain().state_dict()
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        noise = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in start.items() if t.is_floating_point()}
        state = start | {name: start[name] + noise[name].abs() for name in noise}
        save_file(state, tmp_path / f"m{number}.safetensors")
    pool, task = (
        ModelPool.open([tmp_path / "m*.safetensors"]),
        dataclasses.replace(few(90, 5), build=lambda pool: Chain()),
    )
    whole, by_scores = mix(pool, strategy, task, 8, dtype)
    found, by_tests = mix(pool, early(strategy), task, 8, dtype)
    assert by_tests.evaluator.keys.statistics
    assert np.array_equal(found.coefficients, whole.coefficients)
    assert decided(by_tests.decisions) == decided(by_scores.decisions)
    assert all(agree(*pair) for pair in zip(by_scores.decisions, by_tests.decisions, strict=True))
    assert any("samples_seen" in facts for facts in by_tests.decisions)


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=repr)
def test_fewer_samples_are_seen(folder: Path, strategy: MixStrategy) -> None:
    pool, task = ModelPool.open([folder / "model_*.safetensors"]), few(400, 1)
    passes = []
    for each in (strategy, early(strategy)):
        _, problem = mix(pool, each, task, batch=8)
        passes.append(problem.evaluator.ledger.total.forward_equivalents)
        known = [set(facts) & set(OF_AVERAGES) for facts in problem.decisions]
    assert passes[1] < passes[0] - 0.5
    assert {"average_at_most", "samples_seen"} in known


@pytest.mark.parametrize("strategy", [STRATEGIES[1], STRATEGIES[3]], ids=repr)
def test_a_limit_ends_both_at_the_same_decision(folder: Path, strategy: MixStrategy) -> None:
    pool, task = ModelPool.open([folder / "model_*.safetensors"]), few(60, 3)
    for limit in range(8, 15):
        found = []
        for each in (strategy, early(strategy)):
            how = {"partitioner": Layer(), "task": task, "device": "cpu", "budget": 4}
            session = Session.open(plan(pool, each, max_evaluations=limit, measured=NUMERICS, **how))  # type: ignore[arg-type]
            problem = session.problem(each)
            with contextlib.suppress(Stopped):
                each.mix(problem)
            assert problem.best is not None
            found.append((decided(problem.decisions), problem.best[0].names, problem.best[1].score))
        assert found[0] == found[1]
    assert limit > len(pool) + 1


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=repr)
def test_methods_of_a_benchmark_cost_what_they_cost_alone(folder: Path, strategy: MixStrategy) -> None:
    """Whatever another method has scored before, in the same memory."""
    pool, costs = ModelPool.open([folder / "model_*.safetensors"]), []
    made = plan(
        pool, strategy, partitioner=Layer(), task=few(60, 3), device="cpu", budget=4, measured=NUMERICS, tune=True
    )
    for order in ((True,), (False, True), (True, False)):
        cost, began = {}, time.perf_counter()
        with Memory(None) as memory:
            memory.write("benchmark")
            for tests in order:
                each = early(strategy) if tests else strategy
                session = Session.open(made, memory)
                each.mix(session.problem(each))
                assert session.evaluator is not None
                ledger = session.evaluator.ledger
                cost[tests] = (ledger.meter.evaluations, ledger.meter.forward_equivalents)
                assert ledger.spent < time.perf_counter() - began
        costs.append(cost[True])
    assert costs[1:] == costs[:1] * 2


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=repr)
def test_a_rehearsal_counts_the_same(folder: Path, strategy: MixStrategy) -> None:
    pool = ModelPool.open([folder / "model_*.safetensors"])
    meters = []
    for each in (strategy, early(strategy)):
        made = plan(pool, each, partitioner=Layer(), task=tiny_task(), device="cpu", budget=5)
        meters.append(rehearse(made, 3).meter)
    assert meters[0].evaluations == meters[1].evaluations
    assert meters[0].forward_equivalents == meters[1].forward_equivalents


def run(folder: Path, strategy: MixStrategy, output: Path, **how: Any) -> merging.Result:
    return merging.merge(
        ModelPool.open([folder / "model_*.safetensors"]),
        strategy,
        task=few(1000, 3),
        partitioner=Layer(),
        budget=4,
        device="cpu",
        output=output,
        **how,
    )


def events(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "events.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "time", "request")} for line in lines]


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=repr)
def test_a_run_is_gone_on_with_anywhere(folder: Path, strategy: MixStrategy, tmp_path: Path) -> None:
    """The tests that it has made stand in its journal: the same events, costs and model as without a break."""
    whole = run(folder, early(strategy), tmp_path / "whole")
    lines = (tmp_path / "whole" / "events.jsonl").read_bytes().splitlines(keepends=True)
    tests = [number for number, line in enumerate(lines) if b'"event":"test"' in line]
    assert tests
    for number in (tests[0], tests[0] + 1, tests[-1]):
        folder_of = tmp_path / f"cut-{number}"
        folder_of.mkdir()
        (folder_of / "events.jsonl").write_bytes(b"".join(lines[:number]))
        again = run(folder, early(strategy), folder_of, resume=True)
        assert events(folder_of) == events(tmp_path / "whole")
        assert again.report.content_hash == whole.report.content_hash
        assert again.report.forward_equivalents == whole.report.forward_equivalents


def test_a_journal_from_before_tests_were_kept_goes_on(folder: Path, tmp_path: Path) -> None:
    """It holds no tests, and the outcome of what was accepted after the decision: it is followed as it is."""
    whole = run(folder, Thrifty(), tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "events.jsonl").read_text("utf-8").splitlines()]
    old: list[dict[str, Any]] = []
    for before, line in zip([{"event": ""}, *lines], lines, strict=False):
        if line["event"] == "decision" and "incumbent" not in line and before["event"] == "evaluation":
            seen = old.pop()  # by the test, which kept nothing; an accepted model was scored after the decision
            old += [line, seen] if line["accepted"] else [line]
        elif line["event"] not in ("test", "finished"):
            old.append(line)
    assert len(old) < len(lines) - 1
    (tmp_path / "old").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in old)
    (tmp_path / "old" / "events.jsonl").write_text(text, "utf-8")
    again = run(folder, Thrifty(), tmp_path / "old", resume=True)
    assert again.report.content_hash == whole.report.content_hash
    assert (tmp_path / "old" / "events.jsonl").read_text("utf-8").startswith(text)


@dataclasses.dataclass(frozen=True)
class Thrifty(MixStrategy):
    """Goes through the pool in order; a model stays in the average if the held-out score rises."""

    name = "thrifty"
    summary = "a greedy soup by threshold tests"
    needs = frozenset({"model", "objective"})
    ranks = False

    def mix(self, problem: merging.Problem) -> Recipe:
        chosen, best = [0], problem.evaluate(problem.single(0)).score
        for index in range(1, len(problem.pool)):
            soup = problem.mean([*chosen, index])
            accepted = problem.scores.exceeds(soup, best).exceeds
            problem.decide(candidate=problem.pool.names[index], accepted=accepted)
            if accepted:
                chosen, best = [*chosen, index], problem.evaluate(soup).score
        return problem.mean(chosen)


@pytest.mark.parametrize(
    "damage", [{"within": [0]}, {"exceeds": 1}, {"samples_seen": "x"}, {"key": 3}, {"seconds": None}]
)
def test_a_damaged_test_is_refused(folder: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    run(folder, early(Greedy()), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()]
    number = next(number for number, line in enumerate(lines) if line["event"] == "test")
    lines[number] |= damage
    text = "".join(json.dumps(line) + "\n" for line in lines[:-1])
    (tmp_path / "run" / "events.jsonl").write_text(text, "utf-8")
    with pytest.raises(FolderError, match=f"line {number + 1} is damaged"):
        run(folder, early(Greedy()), tmp_path / "run", resume=True)

"""A run has the same bits whoever makes its passes, and however many they are."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from merging.errors import CheckpointError, Stopped, WorkersError
from merging.evaluation.workers.crew import Crew
from merging.evaluation.workers.local import Local, threads
from merging.evaluation.workers.remote import RemoteScorer
from merging.evaluation.workers.requests import Kind
from merging.plugins.discovery import load_installed
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Split, Task
from merging.plugins.watcher import Watcher
from merging.running.crew import HANDLER
from merging.running.execution import Execution
from merging.running.found import Found
from merging.running.plan import Plan, plan
from merging.running.session import Session
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.tasks.digits import digits
from merging.values.recipe import Ensemble, Recipe
from tests.evaluation.workers.in_turns import InTurns, in_turns


@dataclass
class Seen:
    """What a run has come to, without its times."""

    events: list[dict[str, Any]]
    recipe: Any
    found: Found


def ran(made: Plan, folder: Path, crew: Crew | None = None, *, resume: bool = False) -> Seen:
    """Runs a plan, and reads its journal."""
    folder.mkdir(exist_ok=True)
    path = folder / "events.jsonl"
    with Journal(path, resume=resume) as journal:
        journal.write("run", made=1)
        session = Session.open(made, journal, Watcher(), crew=crew)
        assert session.evaluator is not None
        session.evaluator.remembered = None  # every outcome is made
        found = Execution(session).execute()
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in events:
        event.pop("seconds", None)
        event.pop("time", None)
    merged = found.merge
    recipes = merged.members if isinstance(merged, Ensemble) else [merged]
    return Seen(events, [each.to_json() for each in recipes if isinstance(each, Recipe)], found)


def same(one: Seen, other: Seen) -> None:
    """Two runs have decided the same, from the same outcomes, at the same cost, and give the same model."""
    assert len(one.events) == len(other.events)
    for first, second in zip(one.events, other.events, strict=True):
        assert first == second
    assert one.recipe == other.recipe


@pytest.fixture(scope="module")
def some_digits() -> tuple[Task, ModelPool]:
    """The built-in task with a part of its data and models: enough for batches, few enough to be fast."""
    task, rows = digits(), torch.arange(300)
    few = Split.of(task.held_out.inputs[rows], task.held_out.labels[rows])
    pool = task.pool() if task.pool is not None else None
    assert pool is not None
    return replace(task, held_out=few, tests={"test": few.part(rows[:70])}, shifts=()), ModelPool(pool.checkpoints[:5])


class Normalised(nn.Module):
    """A convolution with statistics that averages spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.first(images)).relu().mean((2, 3)))
        return found


def normalised(pool: ModelPool) -> nn.Module:
    del pool
    return Normalised()


@pytest.fixture(scope="module")
def statistics() -> tuple[Task, ModelPool]:
    """A task whose averages have their BatchNorm statistics measured again."""
    generator, states = torch.Generator().manual_seed(5), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for _ in range(4):
            module = Normalised()
            states.append({n: t + 0.2 * torch.rand(t.shape, generator=generator) if t.is_floating_point() else t
                           for n, t in module.state_dict().items()})  # fmt: skip
    images, labels = torch.randn(300, 3, 9, 9, generator=generator), torch.randint(0, 4, (300,), generator=generator)
    train = Split.of(torch.randn(64, 3, 9, 9, generator=generator), torch.randint(0, 4, (64,), generator=generator))
    task = Task(name="statistics", build=normalised, held_out=Split.of(images, labels), train=train)
    return task, ModelPool(states)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "greedy": ("greedy", {}, {}),
    "random orders": ("greedy", {"order": "random", "orders": 2}, {}),
    "early": ("greedy", {"early": True}, {}),
    "cobyla": ("manifoldmix", {}, {"budget": 14}),
    "scipy": ("manifoldmix", {"tau": 0.9}, {"budget": 12, "optimizer": "scipy-cobyla"}),
    "optuna": ("manifoldmix", {"tau": 0.99}, {"budget": 12, "optimizer": "optuna"}),
    "nested": ("manifoldmix", {"tau": 0.99}, {"budget": 12, "optimizer": "nested"}),
    "batches": ("manifoldmix", {"tau": 0.99}, {"budget": 20, "optimizer": "random"}),
    "reference": ("manifoldmix", {"profile": "reference"}, {"budget": 8}),
    "ensemble": ("ensemble", {}, {}),
    "greedy ensemble": ("greedy-ensemble", {}, {}),
    "a number": ("task-arithmetic", {"scale": "search"}, {"budget": 6}),
}


def planned(given: tuple[Task, ModelPool], case: str, **more: Any) -> Plan:
    task, pool = given
    strategy, options, settings = CASES[case]
    if strategy == "task-arithmetic":
        pool = ModelPool(pool.checkpoints[1:], pool.checkpoints[0])
    load_installed()
    made = strategies[strategy](**options)
    return plan(pool, made, task=task, partitioner="layer", **{"threads": 1, "baselines": False, "pool_tests": False, **settings, **more})


@pytest.mark.parametrize("case", CASES)
def test_bits_of_one_process(case: str, some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    made = planned(some_digits, case)
    alone = ran(made, tmp_path / "alone")
    for count in (1, 2, 4):
        with in_turns(InTurns(count, seed=count), tmp_path / f"files{count}") as crew:
            same(ran(made, tmp_path / f"by{count}", crew), alone)
            assert sum(each.answers for each in crew.workers) > 5

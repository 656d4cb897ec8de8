"""Worst-group accuracy from a table's column to the report: a run, its refusal without groups, its resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from merging.errors import TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.objectives.worst_group import WorstGroup
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.running.run import merge
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.testing import tiny_pool, tiny_task
from merging.values.recipe import Recipe

NAMES = ("forest", "lake", "city")


def grouped(split: Split) -> Split:
    return split.with_groups([NAMES[number % 3] for number in range(len(split))])


@pytest.fixture
def task() -> Task:
    from dataclasses import replace

    plain = tiny_task()
    tests = {name: grouped(split) for name, split in plain.tests.items()}
    return replace(plain, held_out=grouped(plain.held_out), tests=tests)


def test_a_run_is_scored_by_its_worst_group_on_every_set(tmp_path: Path, task: Task) -> None:
    pool = tiny_pool(tmp_path / "pool", models=4)
    ran = merge(pool, Greedy(), task=task, objective=WorstGroup(), output=tmp_path / "run", certify_split=0.3)
    made = plan(pool, Greedy(), task=task, objective=WorstGroup())
    assert made.live is not None
    assert made.numerics is not None
    evaluator = Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)))
    assert ran.report.merged is not None
    assert isinstance(ran.merge, Recipe)
    for name, score in ran.report.merged.tests.items():
        outcome = evaluator.record(ran.merge, name)
        places = np.array([number % 3 for number in range(outcome.samples)])
        assert score == outcome.score == min(outcome.hits[places == group].mean() for group in range(3))
        assert outcome.terms is not None
    assert json.loads((tmp_path / "run" / "report.json").read_text())["objective"] == "worst-group"


def test_a_set_without_groups_is_refused_before_any_work(tmp_path: Path, task: Task) -> None:
    from dataclasses import replace

    pool: ModelPool = tiny_pool(tmp_path / "pool", models=3)
    half = replace(task, tests=tiny_task().tests)
    with pytest.raises(TaskError, match=r"'worst-group' scores groups, and test names none; give its table a column"):
        merge(pool, Greedy(), task=half, objective=WorstGroup(), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_groups_are_part_of_what_a_score_belongs_to(task: Task) -> None:
    other = task.held_out.with_groups(["a", *["b"] * (len(task.held_out) - 1)])
    assert len({task.held_out.fingerprint, other.fingerprint, tiny_task().held_out.fingerprint}) == 3

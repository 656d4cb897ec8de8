"""What the backends promise beyond the contract that every optimiser is held to."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from merging.errors import OptionError
from merging.optimizers.coordinate import Coordinate
from merging.optimizers.nevergrad import METHODS, Nevergrad, NevergradCobyla
from merging.optimizers.optuna import Optuna
from merging.optimizers.random import Random
from merging.optimizers.scipy_cobyla import ScipyCobyla
from merging.optimizers.scipy_cobyqa import ScipyCobyqa
from merging.plugins.optimizer import Optimizer
from merging.running.search import run_search
from merging.testing import OptimizerContract
from merging.testing.fixtures import Bowl, box
from merging.values.outcome import Outcome

LOCAL = [NevergradCobyla(), ScipyCobyla(), ScipyCobyqa(), Coordinate(), Coordinate(block=3)]
GLOBAL = [*(Nevergrad(method=method) for method in METHODS), Optuna(sampler="tpe"), Optuna(sampler="cmaes")]


def settled(threads: int) -> None:
    """No more threads than before; one that was told to stop gets a moment for it."""
    end = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() <= threads


def called(optimizer: Optimizer) -> str:
    return "-".join([optimizer.name, *(str(value) for value in optimizer.options().values() if value)])


@pytest.mark.parametrize("method", METHODS)
class TestNevergradMethods(OptimizerContract):
    @pytest.fixture
    def plugin(self, method: str) -> Optimizer:
        return Nevergrad(method=method)


@pytest.mark.parametrize("sampler", ["cmaes", pytest.param("gp", marks=pytest.mark.slow)])
class TestOptunaSamplers(OptimizerContract):
    @pytest.fixture
    def plugin(self, sampler: str) -> Optimizer:
        return Optuna(sampler=sampler)


class TestCoordinateBlocks(OptimizerContract):
    @pytest.fixture
    def plugin(self) -> Optimizer:
        return Coordinate(block=2)


@pytest.mark.parametrize("dimension", [3, 8])
@pytest.mark.parametrize("optimizer", LOCAL, ids=called)
def test_local_methods_reach_the_top_of_a_bowl(optimizer: Optimizer, dimension: int) -> None:
    assert run_search(optimizer, box(Bowl(dimension), dimension, budget=250)).score > 0.995


@pytest.mark.parametrize("optimizer", GLOBAL, ids=called)
def test_global_methods_come_near_the_top(optimizer: Optimizer) -> None:
    bowl = Bowl(6)
    assert run_search(optimizer, box(bowl, 6, budget=250)).score > 0.85 > bowl(np.full(6, 0.5)).score


def test_ngopt_on_three_components_with_the_budget_that_crashed() -> None:
    """Nevergrad 1.0.12 on NumPy 2.4: ``float()`` of an array in MetaModel, then a thread that never ends."""
    before = threading.active_count()
    staircase = Bowl(3)
    search = box(lambda x: Outcome(score=round(staircase(x).score, 2), samples=1), 3, budget=240)
    assert run_search(Nevergrad(method="NGOpt"), search).score >= 0.99
    assert search.asked == 240
    settled(before)


@pytest.mark.parametrize("optimizer", [*LOCAL, *GLOBAL, Optuna(sampler="gp"), Random()], ids=called)
def test_an_interruption_leaves_no_thread(optimizer: Optimizer) -> None:
    before, bowl = threading.active_count(), Bowl(3)

    def interrupted(x: np.ndarray) -> Outcome:
        if len(bowl.points) == 4:
            raise KeyboardInterrupt
        return bowl(x)

    with pytest.raises(KeyboardInterrupt):
        run_search(optimizer, box(interrupted, 3, budget=60))
    settled(before)


@pytest.mark.parametrize("optimizer", [*LOCAL, *GLOBAL], ids=called)
def test_a_variable_without_room_stays_where_it_is(optimizer: Optimizer) -> None:
    bowl = Bowl(3)
    search = box(bowl, 3, budget=30)
    search.lower[1] = search.upper[1] = search.start[1] = 0.25
    if called(optimizer).startswith("nevergrad"):
        pytest.skip("Nevergrad refuses an empty interval; the core gives it active components only")
    run_search(optimizer, search)
    assert {point[1] for point in bowl.points} == {0.25}


def test_coordinate_moves_the_last_component_first() -> None:
    bowl = Bowl(4)
    run_search(Coordinate(), box(bowl, 4, budget=40))
    moved = [np.flatnonzero(point != bowl.points[0]) for point in bowl.points[1:]]
    assert list(moved[0]) == [3]
    first = {index: next(n for n, which in enumerate(moved) if index in which) for index in range(4)}
    assert sorted(first, key=first.__getitem__) == [3, 2, 1, 0]


def test_optuna_storage_can_be_read_by_a_dashboard(tmp_path: Path) -> None:
    for budget in (5, 7):
        run_search(Optuna(storage=str(tmp_path / "study.db"), study="digits"), box(Bowl(2), 2, budget=budget))
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    studies = [optuna.load_study(study_name=f"digits-{number}", storage=storage) for number in (1, 2)]
    assert [len(study.trials) for study in studies] == [5, 7]
    assert studies[0].trials[0].params == {"x0": 0.5, "x1": 0.5}, "the start comes first"
    assert studies[1].best_value == max(trial.value or 0.0 for trial in studies[1].trials)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("storage", ["/nowhere/at/all/study.db", "postgresql://x:1/y", "nonsense://x"])
def test_optuna_storage_that_cannot_be_used(storage: str) -> None:
    with pytest.raises(OptionError, match="option 'storage' of 'optuna': cannot use") as caught:
        run_search(Optuna(storage=storage), box(Bowl(2), 2, budget=3))
    assert "\n" not in str(caught.value)

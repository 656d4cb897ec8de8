"""The contracts notice what they are for: deaf searches, bits that depend on a hash seed, tensors left on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from merging.plugins.discovery import load_file
from merging.plugins.registry import objectives, optimizers, strategies
from merging.plugins.user_code import PluginError
from merging.testing import ObjectiveContract, OptimizerContract, StrategyContract, tiny_pool
from tests.conftest import ENVIRONMENT

FILE = '''
import contextlib
import threading
import time
from dataclasses import dataclass

import torch

from merging import MixStrategy, Objective, Optimizer
from merging.plugins.registry import objectives, optimizers, strategies


@optimizers.register("deaf")
@dataclass(frozen=True)
class Deaf(Optimizer):
    """Swallows an interruption."""

    def maximize(self, search):
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                search.evaluate(search.start)
        return search.solution("swallowed")


@optimizers.register("lingering")
@dataclass(frozen=True)
class Lingering(Optimizer):
    """Leaves a thread behind that keeps the process alive."""

    def maximize(self, search):
        threading.Thread(target=time.sleep, args=(20,), daemon=False).start()
        while True:
            search.evaluate(search.start)


@strategies.register("hashed")
@dataclass(frozen=True)
class Hashed(MixStrategy):
    """Weighs the first two models by the hash of a string."""

    def mix(self, problem):
        return problem.single(0).lerp(problem.single(1), hash("a string") % 2**40 / 2**40)


@strategies.register("homely")
@dataclass(frozen=True)
class Homely(MixStrategy):
    """Reads the live model's answers as if they were on the CPU."""

    needs = frozenset({"model", "objective", "train", "gradients"})

    def mix(self, problem):
        module = problem.slopes.live(problem.single(0))
        for inputs, labels in problem.slopes.batches("train", problem.generator, 16):
            module(inputs).detach().numpy()
        return problem.single(0)


@objectives.register("weighted")
@dataclass(frozen=True)
class Weighted(Objective):
    """Weighs classes by a table that stays where it was made."""

    def terms(self, logits, labels):
        return (logits.argmax(1) == labels).float() * torch.linspace(0.5, 1.0, 10)[:5].index_select(0, labels)

    def reduce(self, terms):
        return float(terms.double().mean())
'''


@pytest.fixture(scope="module", autouse=True)
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Enters them for these tests alone: no other may find them."""
    path = tmp_path_factory.mktemp("plugins") / "bad.py"
    path.write_text(FILE)
    load_file(path)
    yield
    for name in ("deaf", "lingering"):
        del optimizers._classes[name]
    for name in ("hashed", "homely"):
        del strategies._classes[name]
    del objectives._classes["weighted"]


def test_a_swallowed_interruption() -> None:
    with pytest.raises(AssertionError, match="KeyboardInterrupt was swallowed"):
        OptimizerContract().test_interrupted_it_ends_within_seconds(optimizers["deaf"]())


@pytest.mark.slow
def test_a_thread_that_keeps_the_process_alive() -> None:
    with pytest.raises(pytest.fail.Exception, match="does not end after an interruption"):
        OptimizerContract().test_interrupted_it_ends_within_seconds(optimizers["lingering"]())


def test_another_hash_seed(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool")
    with pytest.raises(AssertionError, match="with another hash seed merges other bits"):
        StrategyContract().test_same_bits_in_another_process(strategies["hashed"](), pool, tmp_path)


USES = '''
import multiprocessing
import os

import pytest
from dataclasses import dataclass

from merging import MixStrategy
from merging.plugins.registry import strategies
from merging.testing import StrategyContract


def twice(number):
    return 2 * number


@strategies.register("uses-the-system")
@dataclass(frozen=True)
class Uses(MixStrategy):
    """Starts processes of its own, and reads the environment."""

    def mix(self, problem):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            index = pool.map(twice, [1])[0] - 2
        return problem.single(index + int(os.environ["WHICH"]))


class TestUses(StrategyContract):
    @pytest.fixture
    def plugin(self, monkeypatch):
        monkeypatch.setenv("WHICH", "1")
        return Uses()
'''
SCRIPT = "import sys, pytest\nraise SystemExit(pytest.main(sys.argv[1:]))\n"


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "form"), [("7", "script"), ("random", "stdin")])
def test_contracts_run_in_whatever_way_a_third_party_starts_them(seed: str, form: str, tmp_path: Path) -> None:
    """A seed that is fixed, a script without a main guard, children of children, a variable that a fixture sets."""
    (tmp_path / "test_uses.py").write_text(USES)
    (tmp_path / "run.py").write_text(SCRIPT)
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", "another_process", "test_uses.py"]
    head = {"script": ["run.py"], "stdin": ["-"]}[form]  # `-m pytest` is how the examples' packages are tested
    done = subprocess.run(
        [sys.executable, *head, *arguments],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONHASHSEED": seed},
        input=SCRIPT if form == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_tensors_that_are_taken_for_the_cpus(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool")
    with pytest.raises(PluginError, match="TypeError: can't convert cuda:0 device type tensor to numpy"):
        StrategyContract().test_a_device_is_no_other_problem(strategies["homely"](), pool)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        ObjectiveContract().test_takes_tensors_of_a_device(objectives["weighted"]())

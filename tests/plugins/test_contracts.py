"""Every registered plug-in keeps the contract of its kind; a new file is tested with no other edit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from merging.plugins.discovery import load_all
from merging.plugins.options import Plugin, build
from merging.plugins.registry import forms, models, objectives, optimizers, partitioners, regimes, strategies, tasks
from merging.testing import (
    DataFormContract,
    ModelSourceContract,
    ObjectiveContract,
    OptimizerContract,
    PartitionerContract,
    RegimeContract,
    StrategyContract,
    TaskContract,
)

load_all()


def example(plugin: type[Plugin]) -> Plugin:
    return build(plugin, plugin.example_options)


class TestStrategies(StrategyContract):
    @pytest.fixture(params=list(strategies))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(strategies[request.param])


class TestPartitioners(PartitionerContract):
    @pytest.fixture(params=list(partitioners))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(partitioners[request.param])


class TestOptimizers(OptimizerContract):
    @pytest.fixture(params=list(optimizers))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(optimizers[request.param])


class TestObjectives(ObjectiveContract):
    @pytest.fixture(params=list(objectives))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(objectives[request.param])


class TestRegimes(RegimeContract):
    @pytest.fixture(params=list(regimes))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(regimes[request.param])


@pytest.mark.slow
class TestTasks(TaskContract):
    @pytest.fixture(params=list(tasks))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return tasks[request.param]


@pytest.mark.slow
class TestModelSources(ModelSourceContract):
    @pytest.fixture(params=list(models))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return models[request.param]


class TestForms(DataFormContract):
    @pytest.fixture(params=list(forms))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(forms[request.param])


NEW_FILE = '''
"""The first model of the pool."""

from dataclasses import dataclass

from merging.plugins.strategy import MixStrategy
from merging.plugins.registry import strategies


@strategies.register("first")
@dataclass(frozen=True)
class First(MixStrategy):
    """Takes the first model."""

    summary = "the first model"

    def mix(self, problem):
        return problem.single(0)
'''

RUN = """
import sys
import pytest
import merging.strategies
merging.strategies.__path__.append(sys.argv[1])
raise SystemExit(pytest.main(
    [sys.argv[2], "-q", "-k", "TestStrategies and first", "-p", "no:randomly", "-p", "no:cacheprovider",
     "--rootdir", sys.argv[3]]
))
"""


@pytest.mark.slow
def test_a_new_file_is_found_and_tested(tmp_path: Path) -> None:
    folder = tmp_path / "strategies"
    folder.mkdir()
    (folder / "first.py").write_text(NEW_FILE)
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = [str(folder), str(here), str(here.parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = int(done.stdout.split(" passed")[0].split()[-1])
    assert ran >= 20, done.stdout

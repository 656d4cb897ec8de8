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
from merging.plugins.registry import (
    forms,
    models,
    objectives,
    optimizers,
    partitioners,
    regimes,
    sinks,
    strategies,
    tasks,
)
from merging.testing import (
    DataFormContract,
    ModelSourceContract,
    ObjectiveContract,
    OptimizerContract,
    PartitionerContract,
    RegimeContract,
    SinkContract,
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


class TestSinks(SinkContract):
    @pytest.fixture(params=list(sinks))
    def plugin(self, request: pytest.FixtureRequest) -> Any:
        return example(sinks[request.param])


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


NEW_FILES = {
    "training.regimes": '''
"""Plain training."""
from dataclasses import dataclass
from merging.training.regime import Regime, regimes

@regimes.register("first-new")
@dataclass(frozen=True)
class New(Regime):
    """Trains."""
    summary = formula = limits = paper = "new"

    def train(self, runs):
        while not runs[0].finished:
            for _ in range(runs[0].steps):
                runs[0].step()
            yield
''',
    "tasks.suites": '''
"""The blobs."""
from merging.plugins.registry import tasks

@tasks.register("first-new", formula="new", limits="new", paper="new")
def new():
    """Blobs."""
    from merging.testing import tiny_task
    return tiny_task()
''',
    "models.sources": '''
"""Tiny ones."""
from merging.plugins.registry import models

@models.register("first-new", formula="new", limits="new", paper="new", decides_classes=True,
                 tiny=lambda folder: "merging.testing.models:tiny_images")
def new(name, arguments):
    """As python: has it."""
    from merging.models.own import Python

    class New(Python):
        def __init__(self):
            super().__init__(f"python:{name}", arguments)
            self.spec = self.spec.replace("python:", "first-new:")

    return New()
''',
    "data.forms": '''
"""Numbers."""
from dataclasses import dataclass
from merging.data.form import DataForm
from merging.plugins.registry import forms

@forms.register("first-new")
@dataclass(frozen=True)
class New(DataForm):
    """Three numbers in a name."""
    summary = formula = limits = paper = "new"
    written = "new:NUMBERS"

    def reads(self, path):
        return path.startswith("new:")

    def open(self, reader):
        import torch
        from merging.plugins.task import Split
        numbers = torch.tensor([int(letter) for letter in reader.path.partition(":")[2]])
        return reader.samples(Split.of(numbers.float()[:, None], numbers), names=("a", "b", "c"))

    @staticmethod
    def tiny(folder):
        return "new:0120"
''',
    "sinks": '''
"""Nobody."""
from dataclasses import dataclass
from merging.plugins.registry import sinks
from merging.plugins.sink import Sink, SinkWriter

@sinks.register("first-new")
@dataclass(frozen=True)
class New(Sink):
    """Listens."""
    summary = formula = limits = paper = "new"

    def begin(self, run):
        return SinkWriter()
''',
}
RUN_NEW = """
import importlib, importlib.util, sys
import pytest
for place in sys.argv[4:]:
    importlib.import_module(f"merging.{place}").__path__.append(f"{sys.argv[1]}/{place}")
spec = importlib.util.spec_from_file_location("build_reference", f"{sys.argv[3]}/docs/build_reference.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
print(sorted(page for page in build.pages() if "first-new" in page))
raise SystemExit(pytest.main([sys.argv[2], "-q", "-k", "first-new", "-p", "no:randomly", "-p", "no:cacheprovider",
                              "--rootdir", sys.argv[3]]))
"""


@pytest.mark.slow
def test_a_new_file_of_the_other_kinds_is_found_documented_and_tested(tmp_path: Path) -> None:
    for place, text in NEW_FILES.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "first_new.py").write_text(text)
    here = Path(__file__)
    arguments = [str(tmp_path), str(here), str(here.parents[2]), *NEW_FILES]
    done = subprocess.run(
        [sys.executable, "-c", RUN_NEW, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("regime", "task", "model", "form", "sink"):
        assert f"reference/{kind}/first-new.md" in done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 40, done.stdout


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

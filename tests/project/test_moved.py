"""What moved answers by its old path for one release, and says where it is now."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import warnings
from typing import Any

import pytest

import merging
from merging.moved import MODULES, NAMES, home

PUBLIC = {
    "benchmarking.rendering": "render",
    "checkpoint": "Checkpoint",
    "discovery": "load_all load_file",
    "geometry": "Geometry",
    "interfaces": "MixStrategy Objective Optimizer Partitioner Problem Progress Search NEEDS Outcome Recipe Weights",
    "interpolation": "interpolate",
    "inspection": "Inspection inspect_module inspect_pool",
    "options": "option UNSET",
    "outcome": "Outcome Solution compare",
    "partition": "Component Partition",
    "pool": "ModelPool",
    "progress": "Silent",
    "recipe": "Ensemble Recipe Weights",
    "registry": "strategies partitioners optimizers objectives regimes KINDS",
    "report": "Report",
    "run": "Result merge",
    "scoring": "evaluate",
    "task": "Split Task",
}
"""Public names, and those that the documentation named, by their homes of release 0.1."""
CASES = [(f"merging.{old}", name) for old, names in PUBLIC.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), CASES)
def test_public_names_answer_by_their_old_path(module: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"{module}\.{name} has moved: import {name} from {home(module, name)}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home(module, name)), name)
    if name in merging.__all__ and name != "render":
        assert found is getattr(merging, name)


@pytest.mark.parametrize("old", list(MODULES))
def test_every_module_that_moved_can_be_imported(old: str) -> None:
    module = importlib.import_module(f"merging.{old}")
    with pytest.raises(AttributeError):
        module.nothing_of_this_name  # noqa: B018
    importlib.import_module(f"merging.{MODULES[old]}")


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, found in NAMES.items() for new in found])
def test_names_that_moved_alone_are_where_the_table_says(old: str, new: str) -> None:
    for name in NAMES[old][new].split():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found = getattr(importlib.import_module(f"merging.{old}"), name)
        assert found is getattr(importlib.import_module(f"merging.{new}"), name)


def test_a_star_import_brings_what_it_brought() -> None:
    found: dict[str, object] = {}
    with pytest.warns(FutureWarning):
        exec("from merging.interfaces import *", found)  # noqa: S102
    assert {"MixStrategy", "Objective", "Problem", "Outcome", "Weights", "Vector"} <= set(found)


def test_a_class_that_was_renamed() -> None:
    from merging.training.regimes import swa

    with pytest.warns(FutureWarning, match="import SwaRegime from"):
        assert swa.Swa is merging.SwaRegime


def test_the_warning_points_at_the_line_that_imports() -> None:
    code = "import sys\nfrom merging.options import option\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert "<string>:2: FutureWarning" in done.stderr


def test_what_never_was_there_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("merging.pools")
    with pytest.raises(ImportError, match="ModelPoool"):
        from merging.pool import ModelPoool  # noqa: F401


def test_a_module_that_a_function_replaced_is_called_and_described_as_the_function() -> None:
    moved: Any = importlib.import_module("merging.check")
    with pytest.warns(FutureWarning):
        function = moved.check
    assert inspect.signature(moved) == inspect.signature(function)
    assert "models" in inspect.signature(moved).parameters
    with pytest.raises(TypeError, match="missing 2 required"):
        moved()


def test_a_module_that_no_function_replaced_is_not_called() -> None:
    moved: Any = importlib.import_module("merging.progress")
    with pytest.raises(AttributeError, match="progress"):
        moved()

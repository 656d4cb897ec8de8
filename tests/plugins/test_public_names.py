"""The public names: every plug-in, and every type that somebody who writes one has to name."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import merging
from merging.plugins.discovery import load_all
from merging.plugins.profiles import Profile
from merging.plugins.registry import KINDS, PLUGINS

load_all()
FOR_AUTHORS = [
    *(f"plugins.{kind}" for kind in ("strategy", "partitioner", "optimizer", "objective")),
    *("plugins.problem", "plugins.searches", "plugins.slopes", "plugins.whole_model_objective"),
    *(
        "plugins.progress",
        "plugins.options",
        "plugins.profiles",
        "plugins.task",
        "training.regime",
        "data.form",
        "plugins.sink",
    ),
]
"""The modules in which the interfaces stand."""
NOT_NAMED = {"OptionSpec", "Option", "Nested", "Declared", "Setting", "Fault", "Sheet", "Shown"}
"""Types there that nobody who writes a plug-in meets."""


@pytest.mark.parametrize("kind", [*KINDS, "regime", "sink"])
def test_every_built_in_plug_in_is_public(kind: str) -> None:
    entries = [PLUGINS[kind][name] for name in PLUGINS[kind]]
    classes = dict.fromkeys(entry.plugin if isinstance(entry, Profile) else entry for entry in entries)
    own = [plugin for plugin in classes if plugin.__module__.startswith("merging.")]
    assert own
    for plugin in own:
        assert getattr(merging, plugin.__name__, None) is plugin, f"export {plugin} in merging/__init__.pyi"


@pytest.mark.parametrize("name", FOR_AUTHORS)
def test_every_type_of_an_interface_is_public(name: str) -> None:
    """Classes and aliases that an interface's module defines, or imports from this package to annotate with."""
    tree = ast.parse(inspect.getsource(importlib.import_module(f"merging.{name}")))
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    found |= {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("merging."):
            found |= {alias.name for alias in node.names}
    types = {each for each in found if each[0].isupper() and not each.isupper()} - NOT_NAMED
    assert types
    assert types <= set(merging.__all__), "export these in merging/__init__.pyi"


def test_every_public_name_is_there() -> None:
    assert len(merging.__all__) == len(set(merging.__all__)) >= 100
    for name in merging.__all__:
        assert getattr(merging, name) is not None


def test_a_name_stands_once_in_the_table() -> None:
    stub = Path(merging.__file__).with_suffix(".pyi")
    names = [
        alias.asname
        for node in ast.walk(ast.parse(stub.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(filter(None, names)) == sorted(merging.__all__)


def test_importing_it_loads_nothing() -> None:
    heavy = "{'torch', 'numpy', 'nevergrad', 'optuna', 'scipy'}"
    code = f"import sys, merging; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

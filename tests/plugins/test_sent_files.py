"""Plug-in files of another process."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from merging.errors import MergingError
from merging.plugins.discovery import _module_of, load_sent, needed
from merging.plugins.registry import strategies

FILE = """
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy

@strategies.register("sent-twice")
class Sent(MixStrategy):
    needs = frozenset()
    def mix(self, problem):
        return problem.mean(range(len(problem.pool)))
"""


def test_a_name_that_another_file_has_taken_is_left_out() -> None:
    """A file was loaded, its names were freed, and a second one has them: both are known there."""
    before = set(sys.modules)
    load_sent({"/nowhere/one.py": FILE.encode(), "/nowhere/two.py": FILE.encode()})
    new = [name for name in set(sys.modules) - before if name.startswith("merging_plugin_")]
    assert [name.startswith("merging_plugin_one") for name in new] == [True]
    assert strategies["sent-twice"].__module__ == new[0]


def test_one_that_fails_is_said_where_it_is_needed() -> None:
    load_sent({"/nowhere/three.py": b"1 / 0"})
    with pytest.raises(MergingError, match=r"three.py failed: ZeroDivisionError"), needed():
        importlib.import_module(_module_of(Path("/nowhere/three.py")))
    with pytest.raises(ModuleNotFoundError), needed():
        importlib.import_module("nowhere_at_all")

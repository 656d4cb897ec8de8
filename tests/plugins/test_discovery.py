"""Entry points that are wrong are said in a line each and keep nobody from the rest; no file is run twice."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from merging.errors import MergingError
from merging.plugins import discovery
from merging.plugins.discovery import load_all, load_file
from merging.plugins.registry import PLUGINS, objectives, strategies, tasks
from merging.plugins.user_code import import_object
from tests.conftest import Merge

load_all()


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules, paths and names are those of before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in PLUGINS.values():
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def installed(folder: Path, points: str, **modules: str) -> list[str]:
    """What is said of a package with these entry points and modules."""
    name = f"pkg{uuid.uuid4().hex[:8]}"
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    sys.path.insert(0, str(folder))
    return list(discovery.load_installed.__wrapped__())


GROUPS = [registry.group for registry in PLUGINS.values()]
OBJECTS = "import merging\nnumber = 3\nclass Strange:\n    pass\n"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("= {module}:number", "has no name; write name = "),
        ("x y = {module}:Strange", "'x y' is no name for a"),
        ("a/b = {module}:Strange", "'a/b' is no name for a"),
        ("x = {module}:number", "it is of type int, and"),
        ("x = {module}:Strange", "it is the class Strange, and"),
        ("x = {module}", "names no object"),
        ("x = {module}:nothing", "AttributeError"),
        ("x = {module}:a b c", "names no object"),
        ("x = no_such_module_{module}:y", "ModuleNotFoundError"),
        ("{module}:Strange", "cannot be read (a line has no '='; write name = package.module:Class)"),
    ],
)
def test_a_wrong_entry_point_is_said_in_a_line(group: str, point: str, said: str, tmp_path: Path) -> None:
    module = f"m{uuid.uuid4().hex[:8]}"
    before = {kind: set(registry) for kind, registry in PLUGINS.items()}
    (line,) = installed(tmp_path, f"[{group}]\n{point.format(module=module)}\n", **{module: OBJECTS})
    assert said in line
    assert "left out" in line
    assert "\n" not in line
    assert {kind: set(registry) for kind, registry in PLUGINS.items()} == before


@pytest.mark.parametrize("failing", ["1 / 0", "raise ValueError('a\\nb')", "import no_such_module", "def"])
def test_an_entry_point_that_fails_names_file_and_line(failing: str, tmp_path: Path) -> None:
    module = f"m{uuid.uuid4().hex[:8]}"
    (line,) = installed(
        tmp_path, f"[merging.tasks]\nmine = {module}:Mine\n", **{module: f"import merging\n\n{failing}\n"}
    )
    assert f"plug-in {module}:Mine is left out: importing {module} failed: " in line
    assert line.endswith(f"(at {tmp_path / module}.py:3)")
    assert "\n" not in line


def test_two_packages_with_one_name(tmp_path: Path) -> None:
    one, two = (f"m{uuid.uuid4().hex[:8]}" for _ in range(2))
    code = "import merging\nclass Mine(merging.MixStrategy):\n    def mix(self, problem): ...\n"
    group = "[merging.strategies]\nmine-too = {}:Mine\n"
    assert installed(tmp_path, group.format(one), **{one: code}) == []
    (tmp_path / "two").mkdir()
    (line,) = installed(tmp_path / "two", group.format(two), **{two: code})
    assert "already registered by" in line
    assert strategies["mine-too"].__module__ == one


@pytest.mark.parametrize("name", ["", " ", "a b", "a\nb", "a:b", "a=b", "-x", "a/b", "a(b", None, 3, int])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(MergingError, match="is no name for a strategy") as refused:
        strategies.register(name)
    assert "\n" not in str(refused.value)


FILE = """
import os
from dataclasses import dataclass
import merging
from merging.plugins.registry import objectives, tasks
from merging.testing import tiny_task

with open(os.environ["TIMES"], "a") as log:
    log.write("x")


@objectives.register("{name}")
@dataclass(frozen=True)
class Mine(merging.Accuracy):
    summary = "mine"


@tasks.register("{name}-task")
def task():
    return tiny_task()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module's name; its file stands in the working folder, and counts how often it is run."""
    name = f"mine_{uuid.uuid4().hex[:8]}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMES", str(tmp_path / "times"))
    (tmp_path / f"{name}.py").write_text(FILE.format(name=name))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{name}.py").symlink_to(tmp_path / f"{name}.py")
    (tmp_path / "another_name.py").symlink_to(tmp_path / f"{name}.py")
    os.link(tmp_path / f"{name}.py", tmp_path / "hard_link.py")
    return name


WAYS = {
    "plugin": lambda name: load_file(f"{name}.py"),
    "whole path": lambda name: load_file(Path.cwd() / f"{name}.py"),
    "link": lambda name: load_file(f"elsewhere/{name}.py"),
    "other name": lambda name: load_file("another_name.py"),
    "hard link": lambda name: load_file("hard_link.py"),
    "python:": lambda name: import_object(f"python:{name}:task"),
}


@pytest.mark.parametrize("ways", list(itertools.permutations(WAYS, 2)), ids=" then ".join)
def test_a_file_is_run_once_by_whatever_ways_it_is_given(ways: tuple[str, str], mine: str, tmp_path: Path) -> None:
    for way in ways:
        WAYS[way](mine)
    assert (tmp_path / "times").read_text() == "x"
    assert objectives[mine].__name__ == "Mine"
    assert import_object(f"python:{mine}:task") is tasks[f"{mine}-task"]
    assert import_object(f"python:{mine}:Mine") is objectives[mine]


def test_a_module_that_imports_a_plug_in_file_enters_it_anew(mine: str, tmp_path: Path) -> None:
    """Python itself runs it again then, under its own name: the same definitions, and nothing is taken."""
    (tmp_path / "user.py").write_text(f"from {mine} import Mine, task\n")
    load_file(f"{mine}.py")
    found = import_object("python:user:Mine")
    assert objectives[mine] is found
    del sys.modules["user"]


def test_one_name_twice_in_a_file(tmp_path: Path) -> None:
    one = "@tasks.register('{}')\ndef task():\n    pass\n"
    name = f"twice-{uuid.uuid4().hex[:8]}"
    (tmp_path / "twice.py").write_text("from merging.plugins.registry import tasks\n" + 2 * one.format(name))
    with pytest.raises(MergingError, match=f"'{name}' of .* is registered twice there"):
        load_file(tmp_path / "twice.py")


def test_a_module_that_is_reloaded_enters_its_plug_ins_anew(mine: str) -> None:
    """So notebooks work on a file of their own; a name that stands twice in it is refused still."""
    sys.path.append("")
    module = importlib.import_module(mine)
    before = objectives[mine]
    importlib.reload(module)
    assert objectives[mine] is module.Mine is not before
    text = Path(f"{mine}.py").read_text()
    Path(f"{mine}.py").write_text(f"{text}\n{text}\n")
    with pytest.raises(MergingError, match="registered twice there"):
        importlib.reload(module)


def test_a_cell_that_is_run_again_enters_its_plug_in_anew() -> None:
    cell = "from merging.plugins.registry import tasks\n@tasks.register('cell')\ndef task():\n    pass\n"
    sys.modules["notebook_main"] = ModuleType("notebook_main")
    try:
        for _ in range(2):
            exec(cell, sys.modules["notebook_main"].__dict__)  # noqa: S102 (as a notebook does)
            assert tasks["cell"] is sys.modules["notebook_main"].task
    finally:
        del sys.modules["notebook_main"]


def test_two_files_of_one_text_are_two(mine: str, tmp_path: Path) -> None:
    load_file(f"{mine}.py")
    (tmp_path / "copy.py").write_text((tmp_path / f"{mine}.py").read_text())
    with pytest.raises(MergingError, match="is already registered by"):
        load_file("copy.py")


def test_one_file_brings_task_and_objective(mine: str, merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    """As a user does: --plugin for the objective, python: for the task, of one file."""
    flags = ("--plugin", f"{mine}.py", "--objective", mine, "--task", f"python:{mine}:task", "--partitioner", "layer")
    ran = merge("run", "--models", pool_folder / "model_*.safetensors", "--strategy", "greedy", *flags, "-o", "x.y=1")
    assert ran.code == 2
    ran = merge("run", "--models", pool_folder / "model_*.safetensors", "--strategy", "greedy", *flags, "--output", "o")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "o/report.json").read_text())["strategy"] == "greedy"
    assert (tmp_path / "times").read_text() == "x"

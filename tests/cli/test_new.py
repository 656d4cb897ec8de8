"""``merge new``: what it writes works as it is, for every kind of plug-in."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from merging.cli.new import BLANKS, written
from merging.plugins.registry import PLUGINS
from tests.conftest import ENVIRONMENT, Merge

ROOT = Path(__file__).parents[2]
CONFIGURED = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plug-in of every kind, and its test."""
    place = tmp_path_factory.mktemp("new")
    for kind in PLUGINS:
        for name, text in written(kind, f"new-{kind}", f"new_{kind}").items():
            (place / name).write_text(text)
    return place


def _checked(folder: Path, *command: str) -> None:
    environment = ENVIRONMENT | {"MYPYPATH": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_has_a_blank() -> None:
    assert list(BLANKS) == list(PLUGINS)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("TopK", "'top-k' would be one"),
        ("top_k", "'top-k' would be one"),
        ("3d", "'my-3d' would be one"),
        ("../x", "'x' would be one"),
        ("", "'top-k' would be one"),
        ("a" * 41, "at most 40 characters"),
        ("conftest", "pytest would take conftest.py for its own"),
        ("test-x", "pytest would take test_x.py for its own"),
    ],
)
def test_an_odd_name_is_told_a_way_out(merge: Merge, tmp_path: Path, name: str, way_out: str) -> None:
    ran = merge("new", "strategy", name)
    assert (ran.code, way_out in ran.err, list(tmp_path.iterdir())) == (2, True, [])


def test_a_module_that_is_loaded_hides_nothing(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plug-in files are loaded as modules; what a shell would import is what is installed."""
    monkeypatch.setitem(sys.modules, "mean_of_mine", types.ModuleType("mean_of_mine"))
    assert merge("new", "strategy", "mean-of-mine").code == 0
    for hidden in ("torch", "json"):
        ran = merge("new", "strategy", hidden)
        assert (ran.code, f"would hide the module {hidden}" in ran.err) == (2, True)


def test_hints_can_be_typed(merge: Merge) -> None:
    hints = json.loads(merge("new", "strategy", "mean-of-mine", "--output", "my plug-ins", "--json").out)["next"]
    assert shlex.split(hints["test it"]) == ["pytest", "my plug-ins/test_mean_of_mine.py"]
    assert shlex.split(hints["use it"])[3] == "my plug-ins/mean_of_mine.py"


@pytest.mark.slow
def test_each_passes_its_contract(folder: Path) -> None:
    _checked(folder, "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", ".")


def test_each_is_clean_by_the_projects_rules(folder: Path) -> None:
    _checked(folder, "ruff", "check", *CONFIGURED, ".")
    _checked(folder, "ruff", "format", "--check", *CONFIGURED, ".")


@pytest.mark.slow
def test_each_is_typed(folder: Path) -> None:
    files = sorted(str(path) for path in folder.glob("*.py"))
    configured = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    _checked(folder, "mypy", *configured, *files)


@pytest.mark.parametrize("kind", PLUGINS)
def test_it_is_listed_and_described_as_the_hints_say(merge: Merge, kind: str) -> None:
    ran = merge("new", kind, "top-k", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["files"] == ["top_k.py", "test_top_k.py"]
    described = merge(*shlex.split(said["next"]["describe it"])[1:], "--json")
    assert described.code == 0, described.err
    assert (json.loads(described.out)["kind"], json.loads(described.out)["name"]) == (kind, "top-k")
    listed = json.loads(merge("list", kind, "--plugin", "top_k.py", "--json").out)
    assert listed[kind]["top-k"]


def test_the_strategy_runs_as_the_hint_says(merge: Merge, tiny: list[str]) -> None:
    hint = shlex.split(json.loads(merge("new", "strategy", "best-k", "--json").out)["next"]["use it"])
    ran = merge(*hint[1:], *tiny[1:], "--output", "out", "--no-tests")
    assert ran.code == 0, ran.err
    assert json.loads(Path("out/report.json").read_bytes())["strategy"] == "best-k"


@pytest.mark.parametrize("name", ["Top-K", "top_k", "1st", "top k", "../top", "top-", "", "é", "-x"])
def test_odd_names_are_refused(merge: Merge, name: str) -> None:
    ran = merge("new", "strategy", "--", name)
    assert ran.code == 2
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("strategy", "greedy", "there is a strategy 'greedy' already"),
        ("strategy", "torch", "would hide the module torch"),
        ("strategy", "class", "choose another name"),
        ("stratgy", "mine", "did you mean 'strategy'?"),
    ],
)
def test_what_would_clash_is_refused(merge: Merge, kind: str, name: str, said: str) -> None:
    ran = merge("new", kind, name)
    assert ran.code == 2
    assert said in ran.err
    assert not list(Path().iterdir())


def test_no_file_is_overwritten(merge: Merge) -> None:
    Path("test_top_k.py").write_text("mine")
    ran = merge("new", "strategy", "top-k")
    assert ran.code == 2
    assert "test_top_k.py exists" in ran.err
    assert [path.name for path in Path().iterdir()] == ["test_top_k.py"]
    assert merge("new", "strategy", "top-k", "--output", "elsewhere").code == 0
    assert merge("new", "objective", "top-k", "--output", "elsewhere").code == 2

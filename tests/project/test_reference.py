"""The generated pages: there for every plug-in and command, and a missing one is noticed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from merging.cli.main import COMMANDS
from merging.plugins.registry import PLUGINS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_reference", ROOT / "docs/build_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date_whatever_the_terminal() -> None:
    for columns in ("60", "200"):
        done = subprocess.run(
            [sys.executable, ROOT / "docs/build_reference.py", "--check"],
            env=os.environ | {"COLUMNS": columns, "PYTHONHASHSEED": columns},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_for_every_plugin_and_command(build: ModuleType) -> None:
    pages = build.pages()
    for kind, registry in PLUGINS.items():
        for name in registry:
            if registry[name].__module__.startswith("merging."):
                assert registry[name].formula in pages[f"reference/{kind}/{name}.md"]
                assert f"[{name}]({kind}/{name}.md)" in pages["reference/index.md"]
    assert all(f"## merge {name}" in pages["cli.md"] for name in COMMANDS)
    assert "--certify-split" in pages["cli.md"]


def test_missing_stale_and_surplus_pages_are_named(build: ModuleType, tmp_path: Path) -> None:
    wanted = build.pages()
    build.write(tmp_path, wanted)
    assert build.differences(tmp_path, wanted) == []
    (tmp_path / "reference/strategy/greedy.md").unlink()
    (tmp_path / "cli.md").write_text("old")
    (tmp_path / "reference/strategy/gone.md").write_text("of a plug-in that was removed")
    assert build.differences(tmp_path, wanted) == [
        "missing: docs/reference/strategy/greedy.md",
        "stale: docs/cli.md",
        "surplus: docs/reference/strategy/gone.md",
    ]


@pytest.mark.parametrize("what", ["formula", "limits", "paper"])
def test_a_plugin_that_leaves_something_unsaid_is_an_error(build: ModuleType, what: str) -> None:
    entry = {"kind": "strategy", "name": "mine", **dict.fromkeys(build.STATED, "said"), what: " "}
    with pytest.raises(SystemExit, match=f"strategy 'mine' states no {what}"):
        build.require_statements([entry])


def test_what_a_strategy_gives_is_said_in_words() -> None:
    """No count in brackets, and an article that fits."""
    for path in ROOT.glob("docs/reference/strategy/*.md"):
        (said,) = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("Needs "))
        assert re.fullmatch(
            r"Needs [\w ,]+; at least (one model|\d+ models); gives (a recipe|an ensemble|weights)\.", said
        )

"""The comparison with other projects: its page is what docs/why.json says, and what that says of this project is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import OURS, PAGE, ROOT, Files, fault, faults, read, rests, written
from merging.plugins.discovery import load_all
from merging.plugins.registry import strategies

FACTS = read()


def test_the_page_is_what_the_facts_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page, FACTS), "python -m benchmarks.peers --write"


def test_what_is_said_of_this_project_is_so() -> None:
    assert faults(FACTS, {OURS: Files(ROOT)}) == []


def test_every_cell_rests_on_a_file_of_a_version() -> None:
    projects = [name for name in FACTS["sources"] if "'" not in name]
    for point in FACTS["points"]:
        assert list(point["cells"]) == projects, point["point"]
        for project, cell in point["cells"].items():
            assert cell["rests"], (point["point"], project)
            assert cell.get("source", project) in FACTS["sources"]
    for source in FACTS["sources"].values():
        assert "commit" not in source or re.fullmatch(r"[0-9a-f]{40}", source["commit"])


def test_its_numbers_are_those_of_the_program() -> None:
    load_all()
    modules = [strategies[name].__module__ for name in strategies]
    count = sum(module.startswith("merging.strategies.") for module in modules)  # other tests register theirs
    said = next(point for point in FACTS["points"] if point["point"] == "Methods")["cells"][OURS]["says"]
    assert said.startswith(f"[{count}]")
    assert f"by {count} methods" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f": {len(list(rests(FACTS)))} facts" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ({"in": "a/b.py", "has": "one"}, None),
        ({"in": "a/b.py", "has": "three"}, "'three' is not in it"),
        ({"in": "a/c.py", "has": "one"}, "no such file"),
        ({"in": "a/*.py", "lacks": "thr"}, None),
        ({"in": "a/*.py", "lacks": "tw"}, "a/b.py has 'two'"),
        ({"in": "a/*.py", "lines": "^(one|two)$", "count": 2}, None),
        ({"in": "a/*.py", "lines": "one", "count": 2}, "1 lines"),
        ({"in": "a/*.py", "lines": "o", "at_least": 2}, None),
        ({"in": "a/*.py", "lines": "o", "at_least": 3}, "2 lines"),
        ({"in": "a/*/*", "folders": 1}, None),
        ({"in": "a/*/*", "folders": 2}, "1 folders"),
    ],
)
def test_what_is_not_so_is_seen(rest: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "b.py").write_text("one\ntwo\n")
    (tmp_path / "a" / "d" / "e").write_text("")
    assert fault(rest, Files(tmp_path)) == said

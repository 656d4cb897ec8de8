"""SECURITY.md and docs/trust.md name tests and programs that are there, and the package opens files as they say."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "SECURITY.md", ROOT / "docs/trust.md"]
FOLDERS = ("merging", "strategies", "partitioners", "optimizers", "objectives", "cli")
DOORS = {
    r"\btorch\.load\(": r"weights_only=True",
    r"\ballow_pickle=True\b": None,
    r"\bAuto\w+\.from_pretrained\(": r"trust_remote_code=False",
    r"\byaml\.\w*load\w*\(": r"safe_load\(|Loader=_Loader|_Loader\(",
    r"\bpickle\.loads?\(": None,
    r"\bEnvironment\($": r"autoescape=",
}
"""Call that could run a file's code → what must stand in it; None: nowhere but between a program and its workers."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"\b(?:tests|benchmarks|docs|examples)/[\w./-]*\w", text))
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert len([name for name in named if name.startswith("tests/")]) >= 10
    programs = set(re.findall(r"python -m (benchmarks[\w.]*)", text))
    assert [name for name in programs if not _is_program(ROOT / name.replace(".", "/"))] == []


def _is_program(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_the_page_is_what_the_records_say() -> None:
    """Where it is not, ``python docs/renew_trust.py`` writes it again."""
    spec = importlib.util.spec_from_file_location("renew_trust", ROOT / "docs/renew_trust.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    text = (ROOT / "docs/trust.md").read_text("utf-8")
    assert program.page() == text
    assert {found["name"] for found in program.BLOCK.finditer(text)} == set(program.FIGURES)
    assert text.count("<!-- end -->") == len(program.FIGURES)


def test_faults_are_reported_at_the_repositorys_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    address = project["urls"]["Repository"]
    assert f"]({address}/security/advisories/new)" in (ROOT / "SECURITY.md").read_text("utf-8")


def test_files_are_opened_through_no_other_door() -> None:
    seen = set[str]()
    for file in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        place = file.relative_to(ROOT)
        if place.is_relative_to("merging/evaluation/workers") or any((ROOT / up).is_symlink() for up in place.parents):
            continue
        text = file.read_text("utf-8")
        for call, must in DOORS.items():
            for found in re.finditer(call, text, re.MULTILINE):
                seen.add(call)
                said = text[found.start() :][:300]
                assert must is not None, f"{place}: {said.splitlines()[0]}"
                assert re.search(must, said), f"{place}: {said.splitlines()[0]} without {must}"
    assert seen == {call for call, must in DOORS.items() if must is not None}

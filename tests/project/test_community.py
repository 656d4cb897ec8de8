"""What the repository's site reads: workflows, forms of issues, citation, rules. They name what exists here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from merging.cli.main import COMMANDS
from tests.project.check_packaging import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def test_the_citation_is_of_this_package() -> None:
    citation = _read(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == ADDRESS
    assert citation["keywords"] == PROJECT["keywords"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_is_there_and_may_do_no_more(path: Path) -> None:
    """Targets exist, actions are pinned by hash, and nothing may write but a job that says so."""
    workflow = _read(path)
    assert workflow["permissions"] == {"contents": "read"}
    text = path.read_text("utf-8")
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job
        parts = job.get("strategy", {}).get("matrix", {}).get("part", [])
        named = re.findall(r"\bmake ([a-z][\w-]*)", "\n".join(step.get("run", "") for step in job.get("steps", [])))
        assert {*named, *parts} <= TARGETS
        for step in job.get("steps", []):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", "a@" + "0" * 40)), step
    assert re.findall(r"uses: \S+@\S+ +#", text) or "uses:" not in text, "a hash is said to be which version"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_installs_cuda(path: Path) -> None:
    """A runner has 14 GB of disk and no GPU; torch of the package index alone takes nearly half of it."""
    text = path.read_text("utf-8")
    everywhere = "PIP_EXTRA_INDEX_URL" in _read(path)["env"]
    for job in _read(path)["jobs"].values():
        made = "\n".join(step.get("run", "") for step in job.get("steps", []))
        takes_torch = re.search(r"\bmake (?!lowest)|\.ci/run|dist/\*\.whl", made)
        assert everywhere or "download.pytorch.org/whl/cpu" in made or not takes_torch
    assert not everywhere or "download.pytorch.org/whl/cpu" in text


def test_a_fork_does_not_fail_to_show_the_site() -> None:
    """It has no pages: whoever pushes to their own main would get a red cross."""
    jobs = _read(ROOT / ".github/workflows/docs.yml")["jobs"]
    assert "!github.event.repository.fork" in jobs["show"]["if"]


def test_every_check_is_a_job_of_its_own() -> None:
    (check,) = re.findall(r"^check: (.+)$", MAKEFILE, re.MULTILINE)
    assert _read(ROOT / ".github/workflows/checks.yml")["jobs"]["check"]["strategy"]["matrix"]["part"] == check.split()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_commands_that_exist(path: Path) -> None:
    form = _read(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields)
    assert any(part.get("validations", {}).get("required") for part in fields)
    for command in re.findall(r"`merge ([\w-]+)", path.read_text("utf-8")):
        assert command in COMMANDS or command == "--version"


def test_a_worse_soup_needs_the_output_of_check() -> None:
    """Most of them are models of different basins, or sets that differ: it says so before anybody has read the rest."""
    needed = [
        part["attributes"]["label"]
        for part in _read(ROOT / ".github/ISSUE_TEMPLATE/worse-soup.yml")["body"]
        if part.get("validations", {}).get("required")
    ]
    assert "What `merge check` prints" in needed


def test_first_issues_begin_somewhere() -> None:
    """A file that is named is there; one that has moved, or a wish that is done, is taken out of the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Good first issues")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 5
    for row in rows:
        places = [place for place in re.findall(r"`([\w/.-]+)`", row.split("|")[2]) if "/" in place]
        assert places
        assert all((ROOT / place).exists() for place in places), row
        texts = [path.read_text("utf-8") for path in map(ROOT.joinpath, places) if path.is_file()]
        for said in re.findall(r'"([^"]+)"', row):
            assert any(said in text for text in texts), f"{places} do not say {said!r}"


def test_the_address_stands_in_one_way_everywhere() -> None:
    """Whoever gives the repository its address changes one line, and is told which others quote it."""
    quoting = [ROOT / name for name in ("CITATION.cff", "README.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]
    for path in (path for path in quoting if path.is_file()):
        for found in re.findall(r"https://github\.com/[\w-]+/merging\b", path.read_text("utf-8")):
            assert found == ADDRESS, path.name

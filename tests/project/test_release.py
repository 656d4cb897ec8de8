"""What is released is what was promised: the tag's version, bounds that are tested, extras that are documented."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.project.check_packaging import ROOT
from tests.project.check_release import missing

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(each) for each in listed] for name, listed in PROJECT["optional-dependencies"].items()}
FOR_USERS = {"adapters", "data", "lm-eval", "ray", "tensorboard", "text"}


def git(folder: Path, *arguments: str) -> None:
    """Runs git in a folder, as somebody."""
    somebody = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *somebody, *arguments], check=True, capture_output=True)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A checkout that can be released as 2.3.0."""
    for name, text in {
        "pyproject.toml": '[project]\nversion = "2.3.0"\n[project.urls]\nRepository = "https://x.org/us/merging"\n',
        "CITATION.cff": "title: merging\nversion: 2.3.0\n",
        "docs/one.md": "[all](https://github.com/us/merging/issues)\n",
        ".github/ISSUE_TEMPLATE/config.yml": "contact_links: [{url: https://github.com/us/merging/x}]\n",
        "CHANGELOG.md": "# Changelog\n\n## 2.3.0 (2026-01-02)\n\n- news\n",
        "changelog.d/README.md": "how\n",
        "tests/golden/2.3/expected.json": "{}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    git(tmp_path, "init", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=x")
    assert list(missing(tmp_path, "v2.3.0")) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        ("pyproject.toml", "2.3.0", "2.3.1", "the tag is v2.3.0, and pyproject.toml says version 2.3.1"),
        ("pyproject.toml", "2.3.0", "2.3", "is not MAJOR.MINOR.PATCH"),
        ("pyproject.toml", "/us/", "/OWNER/", "OWNER stands in the address of pyproject.toml"),
        ("docs/one.md", "/us/", "/OWNER/", "OWNER stands in the address of docs/one.md"),
        (".github/ISSUE_TEMPLATE/config.yml", "/us/", "/OWNER/", "OWNER stands in the address of .github/ISSUE_TEMP"),
        ("CITATION.cff", "merging\n", "x.org/OWNER/x\n", "OWNER stands in the address of CITATION.cff"),
        ("CITATION.cff", "2.3.0", "2.2.0", "CITATION.cff does not say version 2.3.0"),
        ("CHANGELOG.md", "2.3.0 (", "2.2.0 (", "no section of 2.3.0"),
        ("CHANGELOG.md", "(2026-01-02)", "(unreleased)", "no section of 2.3.0"),
    ],
)
def test_what_is_no_release_is_refused(release: Path, name: str, before: str, after: str, said: str) -> None:
    file = release / name
    file.write_text(file.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    assert any(said in line for line in missing(release, "v2.3.0"))


def test_news_that_are_not_gathered_and_golden_files_that_are_not_there(release: Path) -> None:
    (release / "changelog.d" / "+x.fixed.md").write_text("x\n", encoding="utf-8")
    shutil.rmtree(release / "tests" / "golden")
    said = list(missing(release, "v2.3.0"))
    assert len(said) == 2
    assert "+x.fixed.md" in said[0]
    assert "tests/golden/2.3" in said[1]


def test_a_commit_beside_main_is_no_release(release: Path) -> None:
    """The remote's main counts where it is known; a clone that knows none says what to fetch."""
    git(release, "checkout", "-b", "aside")
    assert list(missing(release, "v2.3.0")) == []
    git(release, "update-ref", "refs/remotes/origin/main", "main")
    git(release, "commit", "--allow-empty", "--message=y")
    (said,) = missing(release, "v2.3.0")
    assert said.startswith("this commit is not on origin/main")
    git(release, "update-ref", "refs/heads/main", "aside")
    assert list(missing(release, "v2.3.0")) == [said]
    git(release, "update-ref", "-d", "refs/remotes/origin/main")
    assert list(missing(release, "v2.3.0")) == []
    git(release, "branch", "--delete", "--force", "main")
    (said,) = missing(release, "v2.3.0")
    assert said.startswith("git knows no branch main")


def test_a_checkout_is_no_wheel() -> None:
    """Tests that say they are run against the wheel are not run against what lies beside them."""
    script = [sys.executable, str(ROOT / "tests/project/check_wheel.py"), "--version"]
    done = subprocess.run(
        script, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{ROOT / 'merging'} is no wheel in site-packages" in done.stderr


def test_a_release_is_tried_where_it_is_said_to_run() -> None:
    """Pythons that are classified are in the workflow; publishing waits for all of it, and for a tag."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    pythons = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert pythons
    assert pythons <= set(jobs["wheel"]["strategy"]["matrix"]["python"])
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    assert any("check_release.py" in step.get("run", "") for step in jobs["build"]["steps"])
    assert jobs["build"]["steps"][0]["with"]["fetch-depth"] == 0, "main is asked for"
    assert not any("pytest" in step.get("run", "") for step in jobs["wheel"]["steps"]), "of the checkout"
    assert any("check_wheel.py" in step.get("run", "") for step in jobs["wheel"]["steps"])


def test_lower_bounds_are_the_versions_that_are_tried() -> None:
    listed = (ROOT / "requirements" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in listed if "==" in line)
    tried = {name.lower(): version for name, version in tried.items()}
    bounds = [Requirement(each) for each in PROJECT["dependencies"]]
    bounds += [each for name in FOR_USERS - {"lm-eval"} for each in EXTRAS[name]]
    for bound in bounds:
        (specifier,) = bound.specifier
        assert specifier.operator == ">=", bound
        name = bound.name.lower().replace("_", "-")
        assert re.match(rf"{re.escape(specifier.version)}(\.\d+)*$", tried[name]), f"{bound}: make lowest-versions"


def test_each_extra_is_documented_and_all_is_all_of_them() -> None:
    table = re.findall(r"^\| `([\w-]+)` \|(.*)\|", (ROOT / "docs" / "installing.md").read_text(encoding="utf-8"), re.M)
    documented = dict(table)
    assert set(documented) == set(EXTRAS)
    for name in FOR_USERS:
        assert all(each.name in documented[name] for each in EXTRAS[name]), name
    (everything,) = EXTRAS["all"]
    assert everything.extras == FOR_USERS


def test_the_image_installs_what_is_declared() -> None:
    """Bounds that the Dockerfile repeats are those of pyproject.toml, and it is given every file of the wheel."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f'"{PROJECT["dependencies"][0]}"' in text
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    assert given == set(folders.values()) | {"LICENSE", "README.md", "pyproject.toml", "setup.py"}

"""docs/dependencies.md is what pyproject.toml asks for, and what the package imports."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
MODULES = {
    "open_clip_torch": "open_clip",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "vl-convert-python": "vl_convert",
    "lm-eval": "lm_eval",
    "jinja2": "jinja2",
}
"""Package → module, where they differ in more than the case."""
BROUGHT = {
    "torchvision": "timm",
    "markupsafe": "jinja2",
    "braceexpand": "webdataset",
    "tokenizers": "transformers",
    "packaging": "datasets",
}
"""Imported, and no dependency of its own: the package that brings it."""
WHERE_THERE = {"pandas", "pytest", "triton"}
"""Imported where somebody has them; the page says for what."""
IMPORT = re.compile(
    r"""^ *(?:from (\w+)[\w.]* import|import (\w+))|\b(?:import_module|needed|find_spec)\(\n? *["'](\w+)""",
    re.MULTILINE,
)
"""A statement, or a call by name."""
NOBODYS = {"cmaes"}
"""Asked for on behalf of another package."""


def named(requirement: str) -> str:
    return re.split(r"[\[><=!~; ]", requirement)[0].lower()


def asked() -> dict[str, set[str]]:
    """Group → packages; what an extra takes from the others is theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"always": project["dependencies"], **project["optional-dependencies"]}
    return {group: {named(each) for each in listed} - {"merging"} for group, listed in groups.items()}


def table(name: str) -> list[list[str]]:
    text = (ROOT / "docs/dependencies.md").read_text("utf-8")
    lines = text.partition(f"<!-- dependencies: {name} -->\n")[2].partition("\n<!-- end -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def packages(cell: str) -> list[str]:
    return [name.lower() for name in re.findall(r"`([^`]+)`", cell)]


@functools.cache
def imported() -> dict[str, set[str]]:
    """Module that is not ours → the wings that import it, by a statement or by name."""
    found = defaultdict[str, set[str]](set)
    folders = ("merging", "strategies", "partitioners", "optimizers", "objectives", "cli")
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        place = file.relative_to(ROOT)
        if any((ROOT / parent).is_symlink() for parent in place.parents):
            continue
        wing = place.parts[1] if place.parts[0] == "merging" else place.parts[0]
        for name in filter(None, itertools.chain.from_iterable(IMPORT.findall(file.read_text("utf-8")))):
            if name not in sys.stdlib_module_names and name != "merging":
                found[name].add(wing if not wing.endswith(".py") else f"`merging/{wing}`")
    return found


def test_every_package_that_is_asked_for_has_its_line() -> None:
    groups = asked()
    always = {name for row in table("always") for name in packages(row[0])}
    assert always == groups.pop("always")
    extras = {name: row[1] for row in table("extras") for name in packages(row[0])}
    users = {extra: names for extra, names in groups.items() if extra not in ("dev", "dev-full", "docs", "all")}
    assert extras == {name: extra for extra, names in users.items() for name in names}
    ours = {name for row in table("developers") for name in packages(row[0])}
    assert ours == (groups["dev"] | groups["dev-full"] | groups["docs"]) - always - set(extras)


def test_each_is_imported_where_the_page_says() -> None:
    found = imported()
    for row, where in [(row, row[2]) for row in table("always")] + [(row, row[3]) for row in table("extras")]:
        (name,) = packages(row[0])
        module = MODULES.get(name, name)
        if name in NOBODYS:
            assert module not in found
            continue
        wings = found[module]
        if where == "nearly everywhere":
            assert len(wings) >= 12, name
        else:
            assert set(where.split(", ")) == wings, name


def test_nothing_is_imported_that_is_not_listed() -> None:
    listed = {name for part in ("always", "extras") for row in table(part) for name in packages(row[0])}
    known = {MODULES.get(name, name) for name in listed} | set(BROUGHT) | WHERE_THERE
    found = set(imported())
    assert found - known == set()
    assert set(BROUGHT) | WHERE_THERE <= found, "what is no longer imported needs no exception"
    text = (ROOT / "docs/dependencies.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in (*BROUGHT, *WHERE_THERE))


@pytest.mark.parametrize(("module", "package"), BROUGHT.items())
def test_what_is_brought_is_brought(module: str, package: str) -> None:
    try:
        assert module in {named(each) for each in requires(package) or []}
    except PackageNotFoundError:
        pytest.skip(f"{package} comes with dev-full")


def test_what_is_loaded_at_the_start(tmp_path: Path) -> None:
    """``import merging``, ``merge --help``, and a merge of weights alone: of all dependencies these alone."""
    for name in "ab":
        save_file({"w": np.ones(2, np.float32)}, tmp_path / f"{name}.safetensors")
    code = (
        "import sys, merging; loaded = [set(sys.modules)]\n"
        "from merging.cli.main import main\n"
        "for line in '--help', 'run a.safetensors b.safetensors --strategy uniform --output run':\n"
        "    sys.argv = ['merge', *line.split()]\n"
        "    try: main()\n    except SystemExit as end: assert not end.code\n"
        "    loaded.append(set(sys.modules))\n"
        "print()\nfor modules in loaded: print(*sorted(modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (tmp_path / "run/model.safetensors").exists()
    first, later, merged = (set(line.split()) for line in ran.stdout.splitlines()[-3:])
    for row in table("always"):
        (name,) = packages(row[0])
        module, said = MODULES.get(name, name), row[5]
        assert (module in first) == (said == "import"), name
        assert (module in later) == (said in ("import", "help")), name
        assert (module in merged) == (said in ("import", "help", "weights")), name

"""The packages list equals the tree; ``make check`` builds and inspects the wheel itself."""

from __future__ import annotations

import tomllib

from tests.project.check_packaging import ROOT, packages_in_tree


def test_packages_list_equals_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages_in_tree()
    assert len(listed) == len(set(listed))


def test_top_folders_are_reached_through_relative_links() -> None:
    for name in ("strategies", "partitioners", "optimizers", "objectives", "cli"):
        link = ROOT / "merging" / name
        assert link.is_symlink()
        assert link.readlink().as_posix() == f"../{name}"

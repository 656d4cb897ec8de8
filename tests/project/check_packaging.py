"""The packaging checks of ``make check``: the wheel holds what it should, and works outside the checkout.

Run as a script; prints a line a check and exits with 1 at the first that fails. ``--write`` brings the list of packages
in pyproject.toml up to date first. (The list stays, because setuptools' own finder follows the links in ``merging/``,
and a clone made with ``core.symlinks=false`` has none: it would lose their packages.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def packages_in_tree() -> set[str]:
    """Every folder with an ``__init__.py`` under ``merging/``, its links followed."""
    found = set()
    for folder, folders, files in os.walk(ROOT / "merging", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        if "__init__.py" in files:
            found.add(Path(folder).relative_to(ROOT).as_posix().replace("/", "."))
    return found


def write_packages() -> None:
    """Puts the tree's packages into pyproject.toml."""
    file = ROOT / "pyproject.toml"
    before, rest = file.read_text().split("packages = [\n", 1)
    listed = "".join(f'    "{name}",\n' for name in sorted(packages_in_tree()))
    _, after = rest.split("\n]\n", 1)
    file.write_text(f"{before}packages = [\n{listed}]\n{after}")


LIMIT = 10_000_000
"""Bytes that a wheel or a source distribution may have."""


def wheel_of(tree: Path, folder: Path, *, through: bool = False) -> Path:
    """Builds a tree's wheel into a folder; ``through``: from a source distribution, which is left beside it."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(tree)]
    subprocess.run(build if through else [*build, "--wheel"], check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def check(condition: bool, what: str) -> None:
    """Prints what was checked; ends the script where it does not hold."""
    print(f"{'ok' if condition else 'FAILED'}: {what}")
    if not condition:
        sys.exit(1)


def main() -> None:
    """All checks."""
    if "--write" in sys.argv:
        write_packages()
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    check(listed == packages_in_tree(), f"the packages list equals the tree (differs in {listed ^ packages_in_tree()})")
    links = [path for path in (ROOT / "merging").iterdir() if path.is_symlink()]
    check(all(not Path(os.readlink(link)).is_absolute() for link in links) and len(links) == 5, "five relative links")
    for left in ("lib", f"bdist.{sysconfig.get_platform()}"):  # setuptools would pack what an earlier build left there
        shutil.rmtree(ROOT / "build" / left, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheel_of(ROOT, Path(folder))
        names = zipfile.ZipFile(wheel).namelist()
        check(wheel.stat().st_size <= LIMIT, f"the wheel has {wheel.stat().st_size / 1e6:.1f} MB")
        for stem in ("__init__.pyi", "py.typed"):
            check(f"merging/{stem}" in names, f"{stem} is in the wheel")
        tops = {name.split("/")[0] for name in names}
        check(
            {t for t in tops if not t.endswith(".dist-info")} == {"merging"},
            f"top level of the wheel is merging: {tops}",
        )
        pool = [info for info in zipfile.ZipFile(wheel).infolist() if "/digits_pool/" in info.filename]
        size = sum(info.file_size for info in pool) / 1e6
        check(len(pool) >= 14 and size <= 8, f"the built-in pool is in the wheel: {len(pool)} files, {size:.1f} MB")
        blanks = [info for info in zipfile.ZipFile(wheel).infolist() if info.filename.startswith("merging/cli/blanks/")]
        there = len(list((ROOT / "cli" / "blanks").glob("*.txt")))
        check(len(blanks) == there > 0, f"the blanks of merge new are in the wheel: {len(blanks)}")
        target = Path(folder) / "site"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
        subprocess.run(install, check=True)
        code = (
            "import merging, merging.plugins.discovery as d; from merging.plugins.registry import KINDS; d.load_all();"
            "print(merging.__file__); print(sum(len(r) for r in KINDS.values()))"
        )
        environment = os.environ | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        check(Path(shown[0]).is_relative_to(target), "the installed package is the one imported outside the checkout")
        check(int(shown[1]) >= 15, f"{shown[1]} plug-ins are found there")
        if not (ROOT / ".git").exists():
            print("not checked: a clone without links, because this is no clone itself")
            return
        clone = Path(folder) / "clone"
        git = ["git", "clone", "--quiet", "--config", "core.symlinks=false", "--config", "advice.detachedHead=false"]
        subprocess.run([*git, str(ROOT), str(clone)], check=True)
        check(not (clone / "merging" / "cli").is_symlink(), "a clone with core.symlinks=false has no links")
        committed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, check=True, capture_output=True).stdout
        if committed and not os.environ.get("CI"):
            print("not checked: its wheel, because the working tree is not committed")
            return
        (Path(folder) / "again").mkdir()
        without = zipfile.ZipFile(wheel_of(clone, Path(folder) / "again", through=True))
        source = next((Path(folder) / "again").glob("*.tar.gz")).stat().st_size
        check(source <= LIMIT, f"the source distribution has {source / 1e6:.1f} MB")
        both = [
            {info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("/RECORD")}
            for archive in (zipfile.ZipFile(wheel), without)
        ]
        check(both[0] == both[1], f"the wheel made from it holds the same bytes in {len(names)} files")


if __name__ == "__main__":
    main()

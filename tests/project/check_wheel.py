"""Runs the tests against an installed wheel: ``python tests/project/check_wheel.py -m "not slow" -n auto``.

By the Python in which the wheel is installed; arguments go to pytest. A checkout holds the package, too, and its tests
would import that one. So the files of this checkout are copied into a folder of their own, without those that the
package is made of, and nothing is run where ``import merging`` finds it anywhere but in site-packages.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {
    "tests/project": "is about the checkout: pages, style, packaging",
}
"""Tests that are not run against a wheel, and why."""


def copied(root: Path, place: Path) -> None:
    """Copies what git knows of a checkout, or would add to it, but for the package's own folders."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    ours = set(settings["package-dir"].values())
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name.split("/")[0] not in ours and (root / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)


def installed(place: Path) -> Path:
    """The package's folder, as tests in a folder import it; ends the script where it is not in site-packages."""
    asked = [sys.executable, "-c", "import merging; print(merging.__file__)"]
    said = subprocess.run(asked, cwd=place, capture_output=True, text=True, check=False)
    if said.returncode:
        sys.exit(f"merging cannot be imported by {sys.executable}: {said.stderr.strip().splitlines()[-1]}")
    found = Path(said.stdout.strip()).resolve().parent
    if found.parent not in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}:
        sys.exit(f"{found} is no wheel in site-packages; install one into a Python of its own, and unset PYTHONPATH")
    return found


def main() -> None:
    """Copies, asks, and ends as pytest does."""
    with tempfile.TemporaryDirectory(prefix="merging-wheel-") as folder:
        place = Path(folder).resolve()
        copied(ROOT, place)
        package = installed(place)
        print(f"the tests of {ROOT} against {package}", flush=True)
        for name, why in LEFT_OUT.items():
            print(f"left out: {name} {why}", flush=True)
        command = [sys.executable, "-m", "pytest", *(f"--ignore={name}" for name in LEFT_OUT)]
        command += ["-o", f"testpaths=tests {shlex.quote(str(package))}", *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=place, env=os.environ, check=False).returncode)


if __name__ == "__main__":
    main()

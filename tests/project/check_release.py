"""Says whether a checkout is what a tag promises, before anything is published: ``python check_release.py v1.2.3``.

Prints a line for each thing that is missing and exits with 1 where there is one. Needs nothing but Python
and git.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUOTING = ("pyproject.toml", "CITATION.cff", "*.md", "docs/**/*.md", "examples/**/*.toml", ".github/**/*.*")
"""Files that may quote the repository's address."""


def without_owner(root: Path) -> Iterator[str]:
    """Which files still quote an address of nobody's, a sentence each."""
    for path in sorted({path for pattern in QUOTING for path in root.glob(pattern)}):
        if "/OWNER/" in path.read_text(encoding="utf-8"):
            yield f"OWNER stands in the address of {path.relative_to(root).as_posix()}"


def off_main(root: Path) -> Iterator[str]:
    """Says it where the commit that is checked out is not on main, which is the remote's where that is known."""
    for branch in ("origin/main", "main"):
        asked = ["git", "-C", str(root), "merge-base", "--is-ancestor", "HEAD", branch]
        answer = subprocess.run(asked, capture_output=True, check=False).returncode
        if answer == 1:
            yield f"this commit is not on {branch}: merge first, and tag the merge"
        if answer in (0, 1):
            return
    yield "git knows no branch main here: git fetch origin main:refs/remotes/origin/main"


def missing(root: Path, tag: str) -> Iterator[str]:
    """What keeps a checkout from being released under a tag, a sentence each.

    Args:
        root: the checkout.
        tag: the tag's name.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    numbers = re.fullmatch(r"(\d+)\.(\d+)\.\d+(?:rc\d+)?", version)
    if tag != f"v{version}":
        yield f"the tag is {tag}, and pyproject.toml says version {version}"
    if numbers is None:
        yield f"version {version} is not MAJOR.MINOR.PATCH"
    yield from off_main(root)
    yield from without_owner(root)
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        yield f"CITATION.cff does not say version {version}"
    if not re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    ):
        yield f"CHANGELOG.md has no section of {version}: towncrier build --version {version}"
    news = sorted(path.name for path in (root / "changelog.d").glob("*.md") if path.name != "README.md")
    if news:
        yield f"changelog.d still holds {len(news)} files, such as {news[0]}"
    if numbers is not None and not (root / "tests" / "golden" / f"{numbers[1]}.{numbers[2]}").is_dir():
        yield f"tests/golden/{numbers[1]}.{numbers[2]} is not there: python -m tests.golden.making"


def main() -> None:
    """Checks this checkout."""
    if len(sys.argv) != 2:
        sys.exit("usage: check_release.py TAG")
    found = list(missing(ROOT, sys.argv[1]))
    print("\n".join(found) or f"{sys.argv[1]} can be released")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

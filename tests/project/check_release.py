"""Says whether a checkout is what a tag promises, before anything is published: ``python check_release.py v1.2.3``.

Prints a line for each thing that is missing and exits with 1 where there is one. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
    if "OWNER" in project["urls"]["Repository"]:
        yield "OWNER stands in the address of pyproject.toml"
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

"""Links of pages: one that stays on the site, or one to the repository's address."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

FIRST = {"README.md": "docs/index.md"}
"""Files whose text is shown in another one's place: the site opens as the README does."""
PICTURES = frozenset({".png", ".svg"})


@dataclass(frozen=True)
class Repository:
    """A checkout, and where others can read its files.

    Attributes:
        root: the checkout.
        address: of the repository, without a slash at its end.
        revision: branch or tag whose files are linked to.
    """

    root: Path
    address: str
    revision: str = "main"

    @classmethod
    def of(cls, root: Path, environ: Mapping[str, str] = os.environ) -> Repository:
        """Finds the address in ``pyproject.toml``; where GitHub's workflows run, in what these say.

        Args:
            root: the checkout.
            environ: environment; a branch or tag is taken from ``GITHUB_REF``, and a pull request's is ``main``.
        """
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        address = project["urls"]["Repository"]
        if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY"} <= environ.keys():
            address = f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
        named = re.fullmatch("refs/(?:heads|tags)/(.+)", environ.get("GITHUB_REF", ""))
        return cls(root, address.rstrip("/"), named[1] if named else "main")


def site_link(link: str, page: str, repository: Repository, *, picture: bool = False) -> str:
    """Says where a link of a page leads on the site.

    Pages of docs/ and pictures stay on the site, relative to where the page is shown; all other files and folders are
    those of the repository's address. Addresses and links within the page are what they were.

    Args:
        link: as the page spells it, relative to the page's folder.
        page: path of the page from the root, such as ``docs/data.md``.
        repository: where other files are.
        picture: whether it is shown there, and not only led to.

    Raises:
        LookupError: there is no such file or folder.
    """
    path, hash_, anchor = link.partition("#")
    if not path or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:|//", path):
        return link
    target = normpath(join(dirname(page), path))
    found = repository.root / target
    if target.startswith("..") or not found.exists():
        raise LookupError(f"{page} links to {link}, which is not there")
    target = FIRST.get(target, target)
    if picture or (target.startswith("docs/") and target.endswith(".md")):
        return relpath(target, dirname(FIRST.get(page, page))) + hash_ + anchor
    kind = "tree" if found.is_dir() else "blob"
    place = "" if target == "." else f"/{target}"
    return f"{repository.address}/{kind}/{repository.revision}{place}{hash_}{anchor}"

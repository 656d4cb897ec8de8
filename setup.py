"""Gives the package its long description: README.md with links that lead somewhere outside the repository, too.

Everything else stands in pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:!\[[^]]*\]\([^)]*\)|[^][]|\[[^][]*\])*)\]\((?P<target>[^)\s]+)\)")
SOURCE = re.compile(r'(?P<before>\b(?:src|srcset|href)=")(?P<target>[^"]+)"')
ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|#|//", re.IGNORECASE)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def long_description(text: str, address: str, version: str) -> str:
    """Makes relative links of a page absolute, those of a version's own files; code is left as it is.

    Args:
        text: the page, in Markdown.
        address: where the repository is.
        version: the release, whose tag is ``v`` and this.
    """

    def absolute(target: str, *, raw: bool) -> str:
        if ABSOLUTE.match(target):
            return target
        return f"{address}/{'raw' if raw else 'blob'}/v{version}/{target}"

    def link(found: re.Match[str]) -> str:
        inner = LINK.sub(link, found["text"])
        return f"{found['image']}[{inner}]({absolute(found['target'], raw=bool(found['image']))})"

    def source(found: re.Match[str]) -> str:
        return f'{found["before"]}{absolute(found["target"], raw="href" not in found["before"])}"'

    parts = CODE.split(text)
    # every second part is code, but a link's text may hold some: links are looked for with code put aside
    aside = parts[1::2]
    marked = "".join(part if number % 2 == 0 else f"\0{number // 2}\0" for number, part in enumerate(parts))
    marked = SOURCE.sub(source, LINK.sub(link, marked))
    return re.sub(r"\0(\d+)\0", lambda found: aside[int(found[1])], marked)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=long_description(page, project["urls"]["Repository"], project["version"]),
        long_description_content_type="text/markdown",
    )

"""Pages as they stand in the repository, made into what the site shows: links, pictures in light and dark, contents."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, join, normpath

from docs.website.links import Repository, site_link

_PIECES = re.compile(
    r"""(?P<code>^\ *(?P<fence>```+|~~~+)[^\n]*\n.*?^\ *(?P=fence)[`~]*\ *$
        | (?<!`)(?P<tick>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=tick)(?!`))
    | (?P<comment><!--.*?-->)
    | (?P<both><picture>.*?</picture>)
    | (?P<image>!\[[^]]*]\()(?P<shown>[^)\s]+)
    | (?P<link>]\(\s*<?|^\ {0,3}\[[^]^][^]]*]:\s+<?)(?P<target>[^)\s<>]+)
    | (?P<attribute>\bsrc=")(?P<source>[^"]+)""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
"""What a page may hold besides plain text; code comes first, so that nothing in it is taken for a link."""


def shown(text: str, page: str, repository: Repository) -> str:
    """Makes a page's text what the site shows; lines keep their numbers.

    Comments go, links lead where :func:`site_link` says, and of a ``<picture>`` each scheme has its own image,
    because a reader of the site may choose another scheme than that of the system.

    Args:
        text: of the page.
        page: its path from the root.
        repository: where it stands.

    Raises:
        LookupError: a link leads to nothing.
    """

    def there(link: str, *, picture: bool = False) -> str:
        return site_link(link, page, repository, picture=picture)

    def piece(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        if found["comment"]:
            return "\n" * found[0].count("\n")
        if found["both"]:
            return images(found["both"], there)
        if found["image"]:
            return found["image"] + there(found["shown"], picture=True)
        if found["attribute"]:
            return found["attribute"] + there(found["source"], picture=True)
        return found["link"] + there(found["target"])

    return _PIECES.sub(piece, text)


def images(picture: str, there: Callable[..., str]) -> str:
    """A ``<picture>`` of a light and a dark image as two, of which the theme shows one."""
    dark = re.search(r'prefers-color-scheme: dark\)" srcset="([^"]+)"', picture)
    light = re.search(r'<img src="([^"]+)" alt="([^"]*)"', picture)
    if dark is None or light is None:
        raise LookupError(f"a picture has no dark source or no image: {picture.splitlines()[1].strip()}")
    made = [
        f'<img class="{name}" src="{there(source, picture=True)}" alt="{light[2]}">'
        for name, source in (("only-light", light[1]), ("only-dark", dark[1]))
    ]
    return "\n".join(made) + "\n" * (picture.count("\n") - 1)


def linked(text: str, page: str) -> list[str]:
    """Names the pages of docs/ that a page links to, without ``docs/`` and ``.md``, in order, each once."""
    found = (normpath(join(dirname(page), link)) for link in re.findall(r"]\(([^)\s#:]+)\.md\)", text))
    return list(dict.fromkeys(path.removeprefix("docs/") for path in found if path.startswith("docs/")))


def contents(text: str) -> dict[str, list[str]]:
    """Reads docs/index.md: heading → the pages that are listed below it."""
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        heading.strip(): linked(listed, "docs/index.md")
        for heading, listed in zip(sections[1::2], sections[2::2], strict=True)
    }


def unlisted(docs: Path) -> list[str]:
    """Pages of docs/ and docs/results that docs/index.md does not list."""
    found = [*docs.glob("*.md"), *docs.glob("results/*.md")]
    there = {path.relative_to(docs).with_suffix("").as_posix() for path in found}
    listed = contents((docs / "index.md").read_text(encoding="utf-8"))
    return sorted(there - {"index"} - {name for names in listed.values() for name in names})


def toctree(names: list[str], caption: str = "") -> str:
    """A list of pages for the sidebar, which the page itself does not show."""
    head = f":caption: {caption}\n" if caption else ""
    return (
        "\n```{toctree}\n:hidden:\n:titlesonly:\n" + head + "\n" + "\n".join(f"/{name}" for name in names) + "\n```\n"
    )

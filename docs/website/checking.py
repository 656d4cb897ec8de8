"""Looks at a built site: every link leads somewhere, and no page loads anything from another host.

python -m docs.website.checking build/site/html
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "source": "srcset", "iframe": "src", "video": "src", "link": "href"}
"""What a browser fetches for an element by itself."""
NOT_LOADED = frozenset({"canonical", "next", "prev", "index", "search", "author", "copyright"})
"""What a ``<link>`` may be that fetches nothing."""
_IN_CSS = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)")


class Page(HTMLParser):
    """One page: its anchors, where it leads, and what it loads from elsewhere.

    Attributes:
        anchors: identifiers of its elements.
        links: addresses that it names.
        foreign: addresses of other hosts that a browser asks when the page is opened.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.foreign: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what an element is called, leads to and loads."""
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[key] for key in (("id", "name") if tag == "a" else ("id",)) if key in told}
        self.links += [told[key] for key in ("href", "src") if key in told]
        loaded = told.get(LOADED.get(tag, ""), "")
        if tag == "link" and told.get("rel") in NOT_LOADED:
            loaded = ""
        self.foreign += [loaded] * bool(urlsplit(loaded).netloc)
        self.foreign += _IN_CSS.findall(told.get("style", ""))


def faults(site: Path) -> list[str]:
    """Everything that is wrong with a built site, a line each.

    Args:
        site: its folder.
    """
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name} loads {address} from another host" for address in page.foreign]
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{name} links to {link}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name} links to {link}, but there is no such place in it")
    for path in sorted(site.rglob("*.css")):
        said = _IN_CSS.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)} loads {address} from another host" for address in said]
    return found


def main(site: Path) -> int:
    """Prints what is wrong; the exit code says whether anything is."""
    found = faults(site)
    print(*found, sep="\n", end="\n" if found else "")
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages, {len(found)} faults" if pages else f"there is no page in {site}")
    return int(bool(found) or not pages)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

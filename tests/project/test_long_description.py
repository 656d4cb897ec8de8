"""What a package index shows: README.md, whose links lead to the release's files in the repository."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable

import pytest

from tests.project.check_packaging import ROOT

ADDRESS = "https://example.org/someone/merging"


@pytest.fixture(scope="module")
def long_description() -> Callable[[str, str, str], str]:
    found: Callable[[str, str, str], str] = runpy.run_path(str(ROOT / "setup.py"))["long_description"]
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](docs/a.md#part)", f"[a]({ADDRESS}/blob/v1.0/docs/a.md#part)"),
        ("![a](docs/a.png)", f"![a]({ADDRESS}/raw/v1.0/docs/a.png)"),
        ("[![a](b.svg)](docs/a.md)", f"[![a]({ADDRESS}/raw/v1.0/b.svg)]({ADDRESS}/blob/v1.0/docs/a.md)"),
        ("[`a[0]` b](c.md)", f"[`a[0]` b]({ADDRESS}/blob/v1.0/c.md)"),
        (
            '<img src="a.png"> <a href="b.md">',
            f'<img src="{ADDRESS}/raw/v1.0/a.png"> <a href="{ADDRESS}/blob/v1.0/b.md">',
        ),
        ("[a](https://x.org/y) [b](#part) <https://z.org>", "[a](https://x.org/y) [b](#part) <https://z.org>"),
        ("`[a](b.md)`", "`[a](b.md)`"),
        ("```\n[a](b.md)\n```\n[a\nb](c.md)", f"```\n[a](b.md)\n```\n[a\nb]({ADDRESS}/blob/v1.0/c.md)"),
    ],
)
def test_relative_links_become_the_repositorys(
    text: str, shown: str, long_description: Callable[[str, str, str], str]
) -> None:
    assert long_description(text, ADDRESS, "1.0") == shown


def test_the_readmes_links_lead_to_files_that_are_there(long_description: Callable[[str, str, str], str]) -> None:
    shown = long_description((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS, "1.0")
    plain = re.sub(r"^```.*?^```$|`[^`\n]+`", "", shown, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r'\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"', plain)
    found = [one or other for one, other in targets]
    assert len(found) > 30
    for target in found:
        assert re.match(r"https?://|#", target), target
        own = re.match(rf"{re.escape(ADDRESS)}/(?:raw|blob)/v1\.0/([^#]+)", target)
        assert own is None or (ROOT / own[1]).exists(), target

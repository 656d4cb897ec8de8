"""Takes the pictures of the page in README and docs again, in a browser; look at each of them afterwards.

    python docs/renew_pictures.py

Renders committed results. Needs the extra dev-full and Debian's chromium, or the browser that MERGING_BROWSER names.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering.forms import render

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"


@dataclass(frozen=True)
class Shot:
    """A picture: of which results, in a window of which size, and what is done before.

    Attributes:
        results: folder below docs/results.
        size: of the window.
        scheme: light or dark.
        until: what ends the picture, where it is higher than the window.
        sharp: pixels of the picture for one of the page.
        ready: brings what is to be seen into the window.
    """

    results: str
    size: tuple[int, int]
    scheme: Literal["light", "dark"] = "light"
    until: str = ""
    sharp: float = 2
    ready: Callable[[Page], None] = lambda page: None


def pointed_at(method: str) -> Callable[[Page], None]:
    """Points at a method in the scatter."""

    def ready(page: Page) -> None:
        page.locator("#scatter").evaluate("figure => scrollTo(0, figure.getBoundingClientRect().top + scrollY - 130)")
        page.wait_for_timeout(300)  # what is pointed at is told until the page scrolls
        x, y = page.evaluate(
            """method => {
              const found = [...document.querySelectorAll('#scatter .live .role-mark.mark-symbol path')];
              const { left, right, top, bottom } = found.find(
                path => path.__data__.datum.method === method).getBoundingClientRect();
              return [(left + right) / 2, (top + bottom) / 2];
            }""",
            method,
        )
        page.mouse.move(x, y)
        page.locator("[role=tooltip]").filter(visible=True).wait_for()

    return ready


SHOTS = {
    "page-light": Shot("pacs/bench_0", (1100, 800), until="#forest svg"),
    "page-dark": Shot("pacs/bench_0", (1100, 800), "dark", until="#forest svg"),
    "page-scatter": Shot("pacs/bench_0", (1100, 600), ready=pointed_at("wise-ft")),
    "page-phone": Shot("pacs/bench_0", (390, 844)),
}


def packed(png: bytes) -> bytes:
    """A picture in its 256 most frequent colours, which are nearly all of it, and a third as large."""
    picture, out = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    counted = picture.getcolors(picture.width * picture.height) or []
    frequent = [colour for _, colour in sorted(counted, reverse=True)[:256]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in frequent for value in colour])  # type: ignore[union-attr]
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()


def main() -> None:
    """Takes every picture."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("MERGING_BROWSER") or shutil.which("chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, shot in SHOTS.items():
            folder = Path(place) / shot.results
            if not folder.exists():
                render(read_folder(ROOT / "docs/results" / shot.results), folder)
            page = browser.new_page(
                viewport={"width": shot.size[0], "height": shot.size[1]},
                color_scheme=shot.scheme,
                device_scale_factor=shot.sharp,
                offline=True,
            )
            page.goto((folder / "benchmark.html").as_uri())
            page.wait_for_selector("html[data-charts=live]", state="attached")
            shot.ready(page)
            if shot.until:
                last = page.locator(shot.until).filter(visible=True).bounding_box()
                page.set_viewport_size({"width": shot.size[0], "height": round(last["y"] + last["height"] + 24)})
            (IMAGES / f"{name}.png").write_bytes(packed(page.screenshot()))
            page.close()
            print(f"{name}.png: {(IMAGES / f'{name}.png').stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()

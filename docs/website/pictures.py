"""Our own SVG pictures in the colours of the scheme that a reader has chosen; their files are those on white."""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax import saxutils

from merging.drawing import SCHEMES, inline

OURS = re.compile(r'<svg [^>]*class="marks"')
"""What the SVG files of this project begin with."""


def in_page(svg: str, name: str, said: str) -> str:
    """An SVG file's picture as HTML to stand in a page, where it scrolls if there is no room for it.

    Args:
        svg: the file's text.
        name: its identifiers begin with it.
        said: what it shows, in words.
    """
    text = re.sub(r' aria-label="[^"]*"', "", inline(svg, name), count=1).replace("\n", "")
    return f'<span class="drawn">{text.replace("<svg ", f"<svg aria-label={saxutils.quoteattr(said)} ", 1)}</span>'


def of_file(path: Path, said: str) -> str | None:
    """A file's picture for a page; None where it is no picture of this project's."""
    if path.suffix != ".svg":
        return None
    text = path.read_text(encoding="utf-8")
    return in_page(text, path.stem, said) if OURS.match(text) else None


def colours() -> str:
    """The style sheet of those pictures: what each colour is in light and in dark."""
    light, dark = (" ".join(f"--{name}: {pair[k]};" for name, pair in SCHEMES.items()) for k in (0, 1))
    return (
        f"body {{ {light} }}\n"
        f'body[data-theme="dark"] {{ {dark} }}\n'
        f'@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) {{ {dark} }} }}\n'
    )

"""A picture as the page has it: drawn for a desktop and for a phone, and as what the page's script draws it from."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import vl_convert

from merging.benchmarking.views import MAP
from merging.drawing import NARROW, WIDE, Drawing, draw, live, scripts
from merging.drawing.rendering import version


@dataclass(frozen=True)
class Figure:
    """One picture of a page.

    Attributes:
        wide: its SVG file for a desktop; the one that stands beside the page, too.
        narrow: the one for a phone; empty of a heat map, of which there may be many.
        live: ``wide`` and ``narrow`` → the specification that the page's script draws.
    """

    wide: bytes
    narrow: bytes
    live: Mapping[str, Mapping[str, Any]]


def figure(drawing: Drawing, name: str) -> tuple[bytes, Figure]:
    """Draws a picture for a page.

    Args:
        drawing: what draws it.
        name: its name, with which its identifiers begin.

    Returns:
        The PNG file that stands beside the page, and what the page shows.
    """
    png, wide = draw(drawing, name, WIDE, "png", "svg")
    narrow = b"" if MAP in name else draw(drawing, name, NARROW, "svg")[0]
    return png, Figure(wide, narrow, {"wide": live(drawing, WIDE), "narrow": live(drawing, NARROW)})


def packed(text: str) -> str:
    """A text as a page holds it and unpacks it by itself: gzip in base64, which no name can end; the same every time.

    >>> gzip.decompress(base64.b64decode(packed("a < b")))
    b'a < b'
    """
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def packed_scripts() -> str:
    """The scripts that draw live charts, packed; the same in all pages."""
    return packed(scripts())


def versions() -> str:
    """Names the libraries that draw live charts, with their versions."""
    parts = {
        "Vega": vl_convert.get_vega_version(),
        "Vega-Lite": version(),
        "vega-embed": vl_convert.get_vega_embed_version(),
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())

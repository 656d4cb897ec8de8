"""From a drawing to its files: PNG and SVG without a browser, SVG for a page, and the specification for its script."""

from __future__ import annotations

import io
import json
import re
from functools import cache, lru_cache
from typing import Any, Literal
from xml.sax import saxutils

import altair as alt
import vl_convert
from PIL import Image

from merging.drawing import converter
from merging.drawing.frame import Drawing, Size
from merging.drawing.theme import SCHEMES, finished

Kind = Literal["png", "svg"]
SHARP = 2
"""Pixels of a PNG for each of the picture's."""
_TAG = re.compile(r"""<[a-zA-Z](?:[^<>"]|"[^"]*")*>""")
_NOISE = re.compile(
    r' (?:aria-roledescription|role|aria-hidden|pointer-events)="[^"]*"| opacity="1"| xmlns:xlink="[^"]*"'
)
_LONG = re.compile(r"-?\d+\.\d{3,}")
_EMPTY = re.compile(r'<path class="(?:background|foreground)"(?: d="(?:M0,0h0v0h0Z)?"| display="none")*/>')


def specification(drawing: Drawing, size: Size, *, files: bool = True) -> dict[str, Any]:
    """Makes a drawing's Vega-Lite specification, checked by Altair.

    Args:
        drawing: what draws it.
        size: size of the whole picture.
        files: colours are those of files, and else names that a page knows.
    """
    return finished(_made(drawing, size), files=files)  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def _made(drawing: Drawing, size: Size) -> dict[str, Any]:
    """What Altair makes, once for a picture's files and its live form; copied by whoever finishes it."""
    return drawing(size).to_dict()


def draw(drawing: Drawing, name: str, size: Size, *kinds: Kind) -> list[bytes]:
    """Draws a picture and gives its files; they have the same bits every time.

    Args:
        drawing: what draws it.
        name: its identifiers in SVG follow from it, so that several pictures can stand in one page.
        size: size of the whole picture.
        kinds: kinds of files, in the order of the result.
    """
    spec = specification(drawing, size)
    return [svg(spec, name).encode() if kind == "svg" else png(spec) for kind in kinds]


def svg(spec: dict[str, Any], name: str) -> str:
    """An SVG file's text: small, and with identifiers that follow from the name."""
    text = converter.text("vegalite_to_svg", json.dumps(spec), vl_version=version())
    said = saxutils.quoteattr(spec.get("description", name))
    text = text.replace("<svg ", f'<svg role="img" aria-label={said} ', 1)
    return identified(_TAG.sub(_tidied, text), name).replace("</g><", "</g>\n<") + "\n"


def png(spec: dict[str, Any]) -> bytes:
    """A PNG file's bytes, ``SHARP`` times as large as the picture."""
    made = converter.data("vegalite_to_png", json.dumps(spec), vl_version=version(), scale=SHARP)
    out = io.BytesIO()  # the converter hardly compresses
    Image.open(io.BytesIO(made)).convert("RGB").save(out, "PNG", optimize=True)
    return out.getvalue()


def inline(svg: str | bytes, name: str) -> str:
    """An SVG file's picture to stand inside a page: its colours are the page's, its identifiers follow the name."""
    text = svg.decode() if isinstance(svg, bytes) else svg
    names = {light: f"var(--{name})" for name, (light, _) in SCHEMES.items()}

    def follow(tag: re.Match[str]) -> str:
        return re.sub(
            r'(?<= fill=")#[0-9a-f]{6}(?=")|(?<= stroke=")#[0-9a-f]{6}(?=")',
            lambda colour: names.get(colour[0], colour[0]),
            tag[0],
        )

    return identified(_TAG.sub(follow, text[text.index("<svg") :]), name)


def live(drawing: Drawing, size: Size) -> dict[str, Any]:
    """The specification for a page's script, whose colours are the page's variables: for the SVG renderer alone."""
    return specification(drawing, size, files=False)


@cache
def scripts() -> str:
    """Vega, Vega-Lite and vega-embed in one script, which sets ``vega``, ``vegaLite`` and ``vegaEmbed``."""
    return converter.text("javascript_bundle", vl_version=version())


@cache
def version() -> str:
    """The version of Vega-Lite: Altair's own, or where the converter lacks it the newest that the converter has."""
    own = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    known = vl_convert.get_vegalite_versions()
    return own if own in known else known[-1]


def identified(text: str, name: str) -> str:
    """Numbers an SVG's identifiers from one, whatever was drawn before, and begins them with the name."""
    begin = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII) or "x"
    found = dict.fromkeys(key for tag in _TAG.findall(text) for key in re.findall(r' id="([^"]*)"', tag))
    new = {key: f"{begin}_{number}" for number, key in enumerate(found, 1)}

    def renamed(tag: re.Match[str]) -> str:
        said = re.sub(r'(?<= id=")[^"]*', lambda key: new[key[0]], tag[0])
        return re.sub(r"(?<=url\(#)[^)]*", lambda key: new.get(key[0], key[0]), said)

    return _TAG.sub(renamed, text) if new else text


def _tidied(tag: re.Match[str]) -> str:
    """A tag without what says nothing, its numbers to a hundredth of a pixel."""
    if _EMPTY.fullmatch(said := _NOISE.sub("", tag[0])):
        return ""
    parts = re.split(r'(?<= aria-label=)("[^"]*")', said)
    return "".join(part if k % 2 else _LONG.sub(lambda n: f"{float(n[0]):.2f}", part) for k, part in enumerate(parts))

"""A task's sets as one picture: a strip of samples for each, their labels above them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from merging.drawing import converter
from merging.drawing.frame import Headed, Margins, Size, framed, pixel, rows
from merging.drawing.rendering import png, specification, svg, version
from merging.drawing.words import shortened
from merging.errors import TaskError, showable
from merging.looking import marked
from merging.looking.samples import check_place, chosen, label, pixels
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split
from merging.storage.atomic import write

SIDE, STEP, HEAD = 84, 96.0, 26.0
"""Pixels of a sample, from one to the next, and of a strip's heading."""
ROW = STEP + 18 + HEAD
TEXTS, LINE = 5, 16.0
"""Texts that are shown of a set, and the pixels of a line."""


def strips(
    sets: Mapping[str, Split],
    path: Path,
    *,
    count: int = 12,
    names: Sequence[str] | None = None,
    decode: Callable[[Tensor], str] | None = None,
) -> None:
    """Writes a picture: a row of samples for each set, their labels above them.

    Args:
        sets: name → split; images, or texts where ``decode`` is given.
        path: path of the picture; its suffix says the format.
        count: samples a set.
        names: names of the classes; default: their numbers.
        decode: a stored sample → its text.

    Raises:
        TaskError: an unknown suffix, or nothing that could be shown.
        FolderError: the folder is not there.
    """
    check_place(path)
    shown = {name: split for name, split in sets.items() if decode is not None or pixels(split, 0) is not None}
    if not shown:
        raise TaskError("no set holds images or texts that could be shown; leave the pictures out")
    size = Size(max(count * STEP, 240.0) + 24, 0)
    write(path, _file(partial(_drawn, shown, (count, names, decode)), size, path))


def _file(drawing: Callable[[Size], alt.LayerChart], size: Size, path: Path) -> bytes:
    spec, kind = specification(drawing, size), path.suffix.lower()
    if kind == ".svg":
        return svg(spec, path.stem).encode()
    if kind == ".pdf":
        return converter.data("vegalite_to_pdf", spec, vl_version=version())
    made = png(spec)
    if kind == ".png":
        return made
    out = io.BytesIO()
    Image.open(io.BytesIO(made)).convert("RGB").save(out, "WEBP" if kind == ".webp" else "JPEG", quality=92)
    return out.getvalue()


def _drawn(shown: Mapping[str, Split], told: tuple[int, Any, Any], size: Size) -> alt.LayerChart:
    count, names, decode = told
    texts: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    top = 0.0
    for name, split in shown.items():
        heads.append({"text": showable(f"{name}, {len(split):,} samples"), "x": 0, "y": top + 14})
        samples = chosen(split, count)
        if decode is not None:
            texts += _lines(split, samples[:TEXTS], names, decode, (size.width - 24, top + HEAD))
            top += HEAD + LINE * min(len(samples), TEXTS) + 8
            continue
        for place, index in enumerate(samples):
            image = pixels(split, index)
            said = shortened(showable(label(split, index, names)), STEP - 8, 10.5)
            texts.append({"text": said, "x": place * STEP, "y": top + HEAD + 8})
            images += [] if image is None else [{"url": _url(image), "x": place * STEP, "y": top + HEAD + 18}]
        top += ROW
    at = {"x": pixel("x", alt.X), "y": pixel("y", alt.Y)}
    layers = [
        rows(heads).mark_text(align="left", fontWeight="bold", fontSize=12).encode(**at, text="text:N"),
        rows(texts).mark_text(align="left", fontSize=10.5).encode(**at, text="text:N"),
    ]
    if images:
        made = rows(images).mark_image(width=SIDE, height=SIDE, align="left", baseline="top")
        layers.append(made.encode(**at, url="url:N"))
    return framed(layers, Size(size.width, top + 12), Margins(12, 12, 4, 8), Headed((), ()), "samples of each set")


def _lines(
    split: Split,
    samples: Sequence[int],
    names: Sequence[str] | None,
    decode: Callable[[Tensor], str],
    room: tuple[float, float],
) -> Iterator[dict[str, Any]]:
    wide, top = room
    for line, index in enumerate(samples):
        if isinstance(split.inputs, Sequences):
            sample = marked.shown(split, index, decode)
            said = f"{sample.label}:  {sample}"
        else:
            said = f"{label(split, index, names)}:  {' '.join(decode(split.tensor[index]).split())}"
        text = showable(said)
        yield {"text": shortened(text, wide, 10.5), "x": 0, "y": top + LINE * (line + 0.5)}


def _url(image: NDArray[np.uint8]) -> str:
    """An image as a page holds it, its pixels as squares."""
    out = io.BytesIO()
    Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"

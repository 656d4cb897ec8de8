"""A picture as a value: shown in a notebook, saved, read as its specification."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import altair as alt

from merging.drawing.frame import WIDE, Drawing, Size
from merging.drawing.rendering import SHARP, png, specification, svg
from merging.drawing.saving import put
from merging.errors import OptionError

KINDS = (".svg", ".png", ".json")
"""Endings of the files that a picture is saved as."""


class Picture:
    """A picture that shows itself in a notebook, without a script or a network, and is saved as SVG, PNG or JSON."""

    def __init__(self, spec: dict[str, Any], name: str = "picture") -> None:
        """Takes a Vega-Lite specification.

        Args:
            spec: the specification.
            name: identifiers in SVG begin with it.
        """
        self._spec, self._name = spec, name

    def to_dict(self) -> dict[str, Any]:
        """Gives the Vega-Lite specification; ``altair.Chart.from_dict`` takes it."""
        return json.loads(json.dumps(self._spec))  # type: ignore[no-any-return]

    def svg(self) -> str:
        """Draws it as SVG, with its text as text."""
        return svg(self._spec, self._name)

    def png(self) -> bytes:
        """Draws it as PNG, twice as large as it is shown."""
        return png(self._spec)

    def save(self, path: Path | str) -> Path:
        """Saves it, whole or not at all.

        Args:
            path: a file whose name ends with ``.svg``, ``.png``, or ``.json`` for the specification.

        Returns:
            The path.

        Raises:
            OptionError: the name ends in another way.
            FolderError: it cannot be written.
        """
        path = Path(path).expanduser()
        makers = {".svg": lambda: self.svg().encode(), ".png": self.png, ".json": self._json}
        if path.suffix not in makers:
            raise OptionError(f"cannot save a picture as {path.name}: the name ends with {', '.join(KINDS)}")
        put(path, makers[path.suffix]())
        return path

    def _json(self) -> bytes:
        return (json.dumps(self._spec, ensure_ascii=False, indent=1) + "\n").encode()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows: the specification where it knows Vega-Lite, and else the PNG."""
        image = self.png()
        kind = f"application/vnd.vegalite.{alt.SCHEMA_VERSION.split('.')[0]}+json"
        size = {"width": int.from_bytes(image[16:20]) // SHARP, "height": int.from_bytes(image[20:24]) // SHARP}
        found = {kind: self.to_dict(), "image/png": base64.b64encode(image).decode()}
        return found, {"image/png": size}

    def __repr__(self) -> str:
        """The picture's description, on one line."""
        return f"Picture({self._spec.get('description', '')!r})"


def picture(drawing: Drawing, size: Size | None = None, name: str = "picture") -> Picture:
    """Draws a picture, to be shown or saved.

    Args:
        drawing: what draws it.
        size: size of the whole picture; ``WIDE`` unless it is said.
        name: identifiers in SVG begin with it.
    """
    return Picture(specification(drawing, size or WIDE), name)

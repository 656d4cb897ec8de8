"""A picture inside a notebook's HTML: an SVG whose text is the notebook's, and whose colours follow its theme.

Notebooks do not tell light from dark as pages do (``prefers-color-scheme`` is the system's, not theirs), but by marks
of their own. Each colour stands with what it is where no style is kept, so that a forge shows the picture as well.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from merging.values.shown import DARK

if TYPE_CHECKING:
    from merging.drawing import Drawing

PLAIN = {"ink": "currentColor", "paper": "none"}
"""Colours that are the notebook's own: text, and the ground, which is left out."""
_COLOUR = re.compile(r'(?P<head> (?:fill|stroke)=")var\(--(?P<name>\w+)\)"')


def inlined(drawing: Drawing) -> Markup:
    """Draws a picture to stand in a notebook's HTML.

    Args:
        drawing: what draws it.
    """
    from merging.drawing import SCHEMES, WIDE, draw, inline

    (svg,) = draw(drawing, "picture", WIDE, "svg")
    name = hashlib.blake2b(svg, digest_size=4).hexdigest()  # a notebook may show several
    plain = {key: light for key, (light, _) in SCHEMES.items()} | PLAIN

    def kept(found: re.Match[str]) -> str:
        colour = PLAIN.get(found["name"]) or f"var(--{found['name']}, {plain[found['name']]})"
        return f'{found["head"]}{colour}"'

    text = _COLOUR.sub(kept, inline(svg, f"picture-{name}").strip())
    # What Vega has drawn: it escapes the names that stand in it.
    return colours() + Markup("<figure>{}</figure>").format(Markup(text))  # noqa: S704


def colours() -> Markup:
    """The colours of pictures as CSS, in light and in dark."""
    from merging.drawing import SCHEMES

    own = {key: pair for key, pair in SCHEMES.items() if key not in PLAIN}
    light, dark = (" ".join(f"--{key}: {pair[k]};" for key, pair in own.items()) for k in (0, 1))
    css = f".merging-shown {{ {light} }}\n:is({DARK}) .merging-shown {{ {dark} }}"
    return Markup("<style>{}</style>").format(Markup(css))  # noqa: S704 (our own colours)

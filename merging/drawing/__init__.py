"""How pictures look, and how they are made: one Vega-Lite specification a chart, drawn without a browser.

A :data:`Drawing` makes a chart for a size. From it come files (:func:`draw`), a picture for a notebook
(:func:`picture`), and what a page shows: an SVG that follows light and dark (:func:`inline`), and the specification for
its script (:func:`live`, :func:`scripts`). Loads Altair, so it is imported where something is drawn.
"""

from merging.drawing.frame import NARROW as NARROW
from merging.drawing.frame import WIDE as WIDE
from merging.drawing.frame import Drawing as Drawing
from merging.drawing.frame import Size as Size
from merging.drawing.matrix import matrix as matrix
from merging.drawing.rendering import draw as draw
from merging.drawing.rendering import inline as inline
from merging.drawing.rendering import live as live
from merging.drawing.rendering import scripts as scripts
from merging.drawing.rendering import specification as specification
from merging.drawing.shown import Picture as Picture
from merging.drawing.shown import picture as picture
from merging.drawing.theme import SCHEMES as SCHEMES
from merging.drawing.theme import Look as Look
from merging.drawing.theme import look as look

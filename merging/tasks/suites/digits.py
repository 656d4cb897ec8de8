"""The built-in task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import tasks

if TYPE_CHECKING:
    from merging.plugins.task import Task


def _tiny(folder: Path) -> Mapping[str, Any]:
    del folder
    return {}


@tasks.register(
    "digits",
    summary="a small CLIP on handwritten digits and five shifts; brings its pool, downloads nothing",
    formula="held-out, test: 800 of scikit-learn's digits each; shifts: printed, inverted, rotated, shifted, outlined",
    limits="Small and easy: it shows that a method works, not how well it does on photographs.",
    paper="Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49",
    sets=("held-out", "test", "printed", "inverted", "rotated", "shifted", "outlined"),
    tiny=_tiny,
)
def digits() -> Task:
    """Scores small CLIP classifiers on scikit-learn's handwritten digits; needs neither a download nor a GPU.

    Held-out and test parts come from one distribution; the shifted sets have the same labels: printed in font
    families never seen in training, inverted, rotated, shifted, outlined.
    """
    from merging.tasks.digits import digits as load

    return load()

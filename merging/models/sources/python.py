"""A user's own architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import models

if TYPE_CHECKING:
    from merging.models.source import ModelSource


def _tiny(folder: Path) -> str:
    del folder
    return "merging.testing.models:tiny_images"


@models.register(
    "python",
    summary="an architecture of your own: a function that returns an nn.Module",
    formula="logits = factory()(inputs)",
    limits="The function alone decides how many classes there are, and how inputs are prepared is said in [task].",
    paper="docs/your-own-models.md",
    written="python:module:factory",
    decides_classes=True,
    tiny=_tiny,
)
def python(name: str, arguments: Mapping[str, Any]) -> ModelSource:
    """An architecture that a function of yours builds, ``python:module:factory``; its arguments go to the function."""
    from merging.models.own import Python

    return Python(f"python:{name}", arguments)

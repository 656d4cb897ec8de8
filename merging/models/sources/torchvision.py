"""Image classifiers of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import models

if TYPE_CHECKING:
    from merging.models.source import ModelSource


def _tiny(folder: Path) -> str:
    del folder
    return "squeezenet1_1"


@models.register(
    "torchvision",
    summary="any of torchvision's image classifiers",
    formula="logits = model(image), the image prepared by the library's own transform",
    limits="GoogLeNet and Inception rescale their inputs, as with published weights, unless transform_input is false.",
    paper="TorchVision maintainers 2016, https://docs.pytorch.org/vision/stable/models.html",
    tiny=_tiny,
)
def torchvision(name: str, arguments: Mapping[str, Any]) -> ModelSource:
    """One of torchvision's classifiers, ``torchvision:NAME``.

    Its arguments are those of the builder, and ``weights``, such as ``IMAGENET1K_V1``, whose transform is meant.
    """
    from merging.models.library import Torchvision

    return Torchvision(name, arguments)

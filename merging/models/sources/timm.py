"""Image classifiers of timm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import models

if TYPE_CHECKING:
    from merging.models.source import ModelSource


def _tiny(folder: Path) -> str:
    del folder
    return "test_resnet"


@models.register(
    "timm",
    summary="any of timm's image classifiers",
    formula="logits = model(image), the image prepared by the library's own transform",
    limits="The name may end with the tag of published weights, whose preprocessing is meant; nothing is downloaded.",
    paper="Wightman 2019, https://github.com/huggingface/pytorch-image-models",
    tiny=_tiny,
)
def timm(name: str, arguments: Mapping[str, Any]) -> ModelSource:
    """One of timm's models, ``timm:NAME`` or ``timm:NAME.TAG``; its arguments are those of ``timm.create_model``."""
    from merging.models.library import Timm

    return Timm(name, arguments)

"""CLIPs of open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import models

if TYPE_CHECKING:
    from merging.models.source import ModelSource


def _tiny(folder: Path) -> str:
    del folder
    return "ViT-S-32-alt"


@models.register(
    "open_clip",
    summary="image towers of open_clip with a linear head, or whole CLIPs with a zero-shot head",
    formula="logits = classification_head(f(image) / |f(image)|), or exp(logit_scale) · f(image) · headᵀ",
    limits="Checkpoints are in the layout of model-soups (model.visual.…, classification_head.weight and .bias), or "
    "whole CLIPs. OpenAI's weights need the names with quickgelu.",
    paper="Wortsman et al. 2022, https://arxiv.org/abs/2203.05482; https://github.com/mlfoundations/open_clip",
    tiny=_tiny,
)
def open_clip(name: str, arguments: Mapping[str, Any]) -> ModelSource:
    """One of open_clip's models, ``open_clip:NAME``.

    Its arguments are ``pretrained``, the tag of published weights whose preprocessing is meant, and
    ``force_image_size``, ``force_quick_gelu``, ``force_patch_dropout``.
    """
    from merging.models.clip import OpenClip

    return OpenClip(name, arguments=arguments)

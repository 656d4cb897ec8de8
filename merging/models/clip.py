"""The classifier of the model-soups release: a CLIP image tower, its features normalised, a linear head.

The text tower's blocks are dropped (``model.transformer.*``) and its other tensors are kept, unused, as in the
published checkpoints: ViT-B/32 then has 160 keys (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482; Fassold
2023 partitions exactly these). No weights are downloaded here: an architecture is built, a pool's weights go in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEXT_LEFTOVERS = ("positional_embedding", "text_projection", "logit_scale", "token_embedding", "ln_final")
"""What stays of the text tower in the published checkpoints; it reaches no logit."""


class ClipClassifier(nn.Module):
    """``logits = classification_head(image_features / |image_features|)``.

    Args:
        clip: an open_clip ``CLIP``; its text blocks are removed unless ``keep_text_blocks``.
        classes: number of output classes.
        keep_text_blocks: keep ``transformer.*`` for checkpoints that carry it.

    Shapes:
        images ``(N, 3, H, W)`` float, already normalised; logits ``(N, classes)``.
    """

    def __init__(self, clip: open_clip.CLIP, classes: int, *, keep_text_blocks: bool = False) -> None:
        super().__init__()
        if not keep_text_blocks:
            del clip.transformer
        self.model = clip
        self.classification_head = nn.Linear(_embed_dim(clip), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of a batch of images."""
        features = F.normalize(self.model.visual(images), dim=-1)
        logits: Tensor = self.classification_head(features)
        return logits


def _embed_dim(clip: open_clip.CLIP) -> int:
    projection = clip.text_projection
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])


def clip_classifier(
    config: dict[str, Any], classes: int, *, tensors: Collection[str] | None = None, seed: int = 0
) -> ClipClassifier:
    """Builds the classifier from an open_clip model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``, …).

    Initial weights are random but reproducible: the global generator is restored afterwards.

    Args:
        config: as open_clip's ``get_model_config`` returns it.
        classes: number of output classes.
        tensors: names in the checkpoints that will be loaded; text blocks are kept, and the text tower's
            leftovers dropped, as these names say. None: the model-soups layout.
        seed: of the initial weights.
    """
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(**{key: config[key] for key in keys if key in config})
        text_blocks = tensors is not None and any(name.startswith("model.transformer.") for name in tensors)
        classifier = ClipClassifier(clip, classes, keep_text_blocks=text_blocks)
    if tensors is not None:
        present = {name.split(".")[1] for name in tensors if name.startswith("model.")}
        for leftover in TEXT_LEFTOVERS:
            if leftover not in present:
                delattr(clip, leftover)
    return classifier

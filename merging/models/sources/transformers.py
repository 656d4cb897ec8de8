"""Classifiers and causal language models of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.plugins.registry import models

if TYPE_CHECKING:
    from merging.models.source import ModelSource


def _tiny(folder: Path) -> str:
    import transformers

    transformers.ViTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        architectures=["ViTForImageClassification"],
    ).save_pretrained(folder)
    return str(folder)


@models.register(
    "transformers",
    summary="classifiers (image, text) and causal language models of transformers, from a folder or an id of the Hub",
    formula="logits = model(pixel_values) or model(input_ids, attention_mask); of a causal language model the sum of "
    "log softmax(model(input_ids)) at the scored tokens",
    limits="The folder is what save_pretrained writes; of an id the small files are fetched; no code from it is run. "
    "Needs the extra text.",
    paper="Wolf et al. 2020, https://arxiv.org/abs/1910.03771",
    written="transformers:FOLDER",
    tiny=_tiny,
)
def transformers(name: str, arguments: Mapping[str, Any]) -> ModelSource:
    """The model of a folder with a ``config.json``; its arguments stand in place of the configuration's own."""
    from merging.models.transformers import transformers_source

    return transformers_source(name, arguments)

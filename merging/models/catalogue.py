"""From a model's name, such as ``timm:resnet18`` or ``transformers:FOLDER``, to its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merging.errors import TaskError, unknown
from merging.models.hub import is_of_hub, sourced
from merging.models.source import ModelSource
from merging.models.spelling import divided, spelled
from merging.moved import forwarding
from merging.plugins.discovery import load_installed
from merging.plugins.registry import models
from merging.plugins.user_code import file_of, kind_of, running


def model_source(spec: str | Mapping[str, Any]) -> ModelSource:
    """Finds the source behind a model's name.

    Args:
        spec: ``open_clip:NAME`` (image tower and linear head), ``timm:NAME``, ``torchvision:NAME``,
            ``transformers:FOLDER`` (image or text classifier, causal language model), or ``python:module:factory`` (a
            function that returns an ``nn.Module``); or an id of the Hub, ``hf-hub:org/name``, also in the place of
            FOLDER or of timm's NAME: its small files are fetched, not its weights; or a name of a source that a plug-in
            registered. Arguments for the library's constructor follow in parentheses,
            ``timm:vit_tiny_patch16_224(img_size=64)``, or stand in a table,
            ``{"timm": "vit_tiny_patch16_224", "img_size": 64}``.

    Raises:
        TaskError: no such source, model, argument or function.
    """
    load_installed()
    written = spelled(spec)
    text, arguments = divided(sourced(written) if is_of_hub(written) else written)
    source, _, name = text.partition(":")
    known = sorted(models, key=lambda each: (each == "python", each))
    if source not in models or not name:
        ways = [getattr(models[each], "written", "") or f"{each}:NAME" for each in known]
        way_out = f"write {', '.join(ways[:-1])} or {ways[-1]}"
        raise unknown("model source", source if name else text, known, way_out, error=TaskError)
    with running(f"'{text}'", models[source], error=TaskError):
        found = models[source](name, arguments)
    if not isinstance(found, ModelSource):
        raise TaskError(
            f"the model source '{source}' returned {kind_of(found)}, not a merging.ModelSource{file_of(models[source])}"
        )
    return found


__getattr__ = forwarding(__name__)  # Python has moved

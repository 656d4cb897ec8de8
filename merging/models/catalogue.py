"""From ``open_clip:NAME`` or ``python:module:factory`` to a function that builds the module for a pool."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import PoolError, TaskError, unknown

if TYPE_CHECKING:
    from torch import nn

    from merging.pool import ModelPool

Builder = Callable[["ModelPool"], "nn.Module"]
SOURCES = ("open_clip", "python")


def model_builder(spec: str) -> Builder:
    """The builder for a model's name.

    Args:
        spec: ``open_clip:NAME`` (image tower and linear head, the number of classes read off the checkpoints) or
            ``python:module:factory`` (a function without arguments that returns an ``nn.Module``).

    Raises:
        TaskError: no such source, model or function.
    """
    source, _, name = spec.partition(":")
    if source == "open_clip" and name:
        return open_clip_builder(name)
    if source == "python" and name:
        factory = import_object(spec)
        return lambda pool: _called(factory, spec)
    raise TaskError(str(unknown("model source", spec, SOURCES, "write open_clip:NAME or python:module:factory")))


def open_clip_builder(name: str) -> Builder:
    """The model-soups classifier on one of open_clip's architectures; nothing is downloaded.

    OpenAI's weights, and with them model-soups' 72 checkpoints, were trained with QuickGELU: they need
    ``ViT-B-32-quickgelu``. Plain ``ViT-B-32`` loads them strictly too, and scores wrongly in silence.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise TaskError(str(unknown("open_clip model", name, open_clip.list_models())))

    def build(pool: ModelPool) -> nn.Module:
        from merging.models.clip import clip_classifier

        head = "classification_head.weight"
        if head not in pool.tensors:
            raise PoolError(
                f"{pool.checkpoints[0].path} has no '{head}'; open_clip:{name} takes checkpoints in the layout of "
                "model-soups (model.visual.…, classification_head.weight and .bias)"
            )
        return clip_classifier(config, pool.tensors[head][0][0], tensors=pool.tensors)

    return build


def import_object(spec: str) -> Any:
    """The object behind ``python:module:name``; installed packages first, then the working folder.

    Raises:
        TaskError: the module or the name does not exist, or importing it fails.
    """
    _, _, rest = spec.partition(":")
    module, _, name = rest.partition(":")
    if not module or not name:
        raise TaskError(f"'{spec}' is incomplete; write python:module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file there must not shadow an installed package
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise TaskError(f"'{spec}': importing {module} failed: {type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise TaskError(str(unknown(f"name in module {module}:", name, [n for n in vars(found) if n[0] != "_"])))
    return getattr(found, name)


def _called(factory: Any, spec: str) -> nn.Module:
    from torch import nn

    try:
        module = factory()
    except Exception as error:  # the user's function may raise anything
        raise TaskError(f"'{spec}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise TaskError(f"'{spec}' returned {type(module).__name__}, not an nn.Module")
    return module

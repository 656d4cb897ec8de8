"""From a model's name, such as ``timm:resnet18`` or ``transformers:FOLDER``, to its source."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import TaskError, raised, unknown
from merging.models.source import ModelSource
from merging.models.spelling import SOURCES, divided, spelled, with_arguments
from merging.plugins.user_code import ExitedError, contained, import_object

if TYPE_CHECKING:
    from torch import nn

    from merging.storage.pool import ModelPool
    from merging.values.partition import TensorInfo


def model_source(spec: str | Mapping[str, Any]) -> ModelSource:
    """The source behind a model's name.

    Args:
        spec: ``open_clip:NAME`` (image tower and linear head), ``timm:NAME``, ``torchvision:NAME``,
            ``transformers:FOLDER`` (image or text classifier), or ``python:module:factory`` (a function that returns an
            ``nn.Module``). Arguments for the library's constructor follow in parentheses,
            ``timm:vit_tiny_patch16_224(img_size=64)``, or stand in a table,
            ``{"timm": "vit_tiny_patch16_224", "img_size": 64}``.

    Raises:
        TaskError: no such source, model, argument or function.
    """
    text, arguments = divided(spelled(spec))
    source, _, name = text.partition(":")
    if source == "open_clip" and name:
        from merging.models.clip import OpenClip

        return OpenClip(name, arguments=arguments)
    if source in ("timm", "torchvision") and name:
        from merging.models.library import Timm, Torchvision

        return Timm(name, arguments) if source == "timm" else Torchvision(name, arguments)
    if source == "transformers" and name:
        from merging.models.transformers import transformers_source

        return transformers_source(name, arguments)
    if source == "python" and name:
        return Python(text, arguments)
    way_out = "write open_clip:NAME, timm:NAME, torchvision:NAME, transformers:FOLDER or python:module:factory"
    raise unknown("model source", source if name else text, SOURCES, way_out, error=TaskError)


def model_builder(spec: str | Mapping[str, Any]) -> Callable[[ModelPool], nn.Module]:
    """The function that builds a model for a pool (see :func:`model_source`)."""
    return model_source(spec).build


class Python(ModelSource):
    """``python:module:factory``: a user's own architecture, whatever its tensors are called."""

    def __init__(self, spec: str, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(with_arguments(spec, arguments or {}))
        factory = import_object(spec)
        self._factory = functools.partial(factory, **arguments) if arguments else factory

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Calls the factory; it alone knows the number of classes."""
        del tensors
        if classes is not None:
            raise TaskError(f"{self.spec} decides itself how many classes it has; leave --classes out")
        return _called(self._factory, self.spec)

    def build(self, pool: ModelPool) -> nn.Module:
        """Calls the factory."""
        del pool
        return self.module()


def _called(factory: Any, spec: str) -> nn.Module:
    from torch import nn

    try:
        with contained():
            module = factory()
    except ExitedError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise TaskError(f"'{spec}' failed: {raised(error, whole=True)}") from error
    if not isinstance(module, nn.Module):
        raise TaskError(f"'{spec}' returned {type(module).__name__}, not an nn.Module")
    return module

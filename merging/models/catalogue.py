"""From a model's name, such as ``timm:resnet18`` or ``transformers:FOLDER``, to its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import TaskError, unknown
from merging.models.source import ModelSource, Preprocessing
from merging.plugins.user_code import ExitedError, contained, import_object

if TYPE_CHECKING:
    from torch import nn

    from merging.storage.pool import ModelPool
    from merging.values.partition import TensorInfo

SOURCES = ("open_clip", "timm", "torchvision", "transformers", "python")


def model_source(spec: str) -> ModelSource:
    """The source behind a model's name.

    Args:
        spec: ``open_clip:NAME`` (image tower and linear head), ``timm:NAME``, ``torchvision:NAME``,
            ``transformers:FOLDER`` (image or text classifier), or ``python:module:factory`` (a function without
            arguments that returns an ``nn.Module``).

    Raises:
        TaskError: no such source, model or function.
    """
    source, _, name = spec.partition(":")
    if source == "open_clip" and name:
        from merging.models.clip import OpenClip

        return OpenClip(name)
    if source in ("timm", "torchvision") and name:
        from merging.models.library import Timm, Torchvision

        return Timm(name) if source == "timm" else Torchvision(name)
    if source == "transformers" and name:
        from merging.models.transformers import transformers_source

        return transformers_source(name)
    if source == "python" and name:
        return Python(spec)
    way_out = "write open_clip:NAME, timm:NAME, torchvision:NAME, transformers:FOLDER or python:module:factory"
    raise TaskError(str(unknown("model source", source if name else spec, SOURCES, way_out)))


def model_builder(spec: str) -> Callable[[ModelPool], nn.Module]:
    """The function that builds a model for a pool (see :func:`model_source`)."""
    return model_source(spec).build


class Python(ModelSource):
    """``python:module:factory``: a user's own architecture, whatever its tensors are called."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._factory = import_object(spec)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Calls the factory; it alone knows the number of classes."""
        del tensors
        if classes is not None:
            raise TaskError(f"{self.spec} decides itself how many classes it has; leave --classes out")
        return _called(self._factory, self.spec)

    @property
    def preprocessing(self) -> Preprocessing:
        """ImageNet's mean and standard deviation; any size."""
        return Preprocessing()

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
        raise TaskError(f"'{spec}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise TaskError(f"'{spec}' returned {type(module).__name__}, not an nn.Module")
    return module

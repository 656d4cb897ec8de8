"""What a model's name such as ``timm:resnet18`` stands for: how to build it, and how its images are prepared."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from merging.errors import PoolError, TaskError
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from merging.storage.pool import ModelPool

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, images between 0 and 1."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become a model's inputs: resized, cropped in the centre, normalised.

    Attributes:
        mean, std: per channel, of images between 0 and 1.
        size: side of the images the architecture was made for, in pixels; None: any.
        resize: length to which the shorter side is brought before the crop to ``size``.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    size: int | None = None
    resize: int | None = None
    interpolation: str = "bicubic"


class ModelSource(ABC):
    """An architecture by its name; nothing is ever downloaded, a pool's weights go in.

    Args:
        spec: the name, with its source: ``timm:resnet18``.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @abstractmethod
    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds the architecture, with reproducible random weights.

        Args:
            classes: outputs of its head; None: the architecture's own number.
            tensors: of the checkpoints that will be loaded, where an architecture has optional parts.

        Raises:
            TaskError: the architecture does not say how many outputs, or cannot be built.
        """

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How its images are prepared, by its own configuration."""

    def named(self, classes: Sequence[str], templates: Sequence[str] = ()) -> ModelSource:
        """The same source, told what the classes are called: only a text tower asks for that.

        Args:
            classes: names, in the order of the outputs.
            templates: of the prompts, each with one ``{}``.

        Raises:
            TaskError: templates are given, and there is no text tower to read them.
        """
        del classes
        if templates:
            raise TaskError(f"{self.spec} has no text tower; leave the templates out")
        return self

    def build(self, pool: ModelPool) -> nn.Module:
        """Builds it for a pool; the number of classes is read off the checkpoints' head.

        Raises:
            PoolError: the checkpoints have no such head.
        """
        heads = self.heads(pool.tensors)
        found = next((name for name in heads if name in pool.tensors), None)
        if found is None:
            raise PoolError(
                f"{pool.checkpoints[0].path} has no '{next(iter(heads))}', the head of {self.spec}; is it another "
                "architecture? one of your own goes in as python:module:function"
            )
        shape, axis = pool.tensors[found][0], heads[found]
        if axis >= len(shape):
            raise PoolError(f"{pool.checkpoints[0].path}: '{found}', the head of {self.spec}, has shape {list(shape)}")
        return self.module(shape[axis], pool.tensors)

    def heads(self, tensors: Mapping[str, TensorInfo] | None = None) -> dict[str, int]:
        """Name → axis of every tensor whose shape follows the number of classes: two builds are compared."""
        two, three = (self._sketch(classes, tensors).state_dict() for classes in (2, 3))
        pairs = ((name, two[name].shape, three[name].shape) for name in two)
        return {n: next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y) for n, a, b in pairs if a != b}

    def _sketch(self, classes: int, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """The architecture without memory for its weights, where its constructor does not look at their values."""
        try:
            with torch.device("meta"):
                return self.module(classes, tensors)
        except (NotImplementedError, RuntimeError, TaskError) as error:
            if "meta tensor" not in str(error):
                raise
            return self.module(classes, tensors)

    @functools.cached_property
    def fixed_size(self) -> bool:
        """Whether it takes images of one size only: it is tried, with shapes alone."""
        size = self.preprocessing.size
        if size is None:
            return False
        module = self._sketch(2).to("meta").eval()
        with torch.device("meta"):
            try:
                module(torch.zeros(2, 3, size + 32, size + 32))
            except NotImplementedError:  # it looks at values, which meta tensors do not have
                return False
            except Exception:  # assertions, shape errors: each library has its own way to refuse
                return True
        return False

    def example(self, batch: int = 2) -> Tensor:
        """A batch of random images as the model takes them: float32, shape ``(batch, 3, size, size)``."""
        side = self.preprocessing.size or 224
        return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def reproducible(build: functools.partial[nn.Module]) -> nn.Module:
    """Calls a constructor with torch's global generator at 0, and puts that back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()

"""What a model's name such as ``timm:resnet18`` stands for: how to build it, and how its images are prepared."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from merging.errors import PoolError, TaskError
from merging.models.spelling import with_arguments
from merging.models.transform import IMAGENET, Normalisation, Transform, as_stored, from_unit
from merging.values.partition import TensorInfo
from merging.values.wording import some

if TYPE_CHECKING:
    from merging.storage.pool import ModelPool

M = TypeVar("M", bound=nn.Module)


class ModelSource(ABC):
    """An architecture by its name; nothing is ever downloaded, a pool's weights go in.

    Args:
        spec: the name, with its source: ``timm:resnet18``.
        arguments: arguments that it is built with; they become part of the spec, as in
            ``timm:vit_tiny_patch16_224(img_size=64)``.
    """

    def __init__(self, spec: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.arguments = dict(arguments or {})
        self.spec = with_arguments(spec, self.arguments)

    @abstractmethod
    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds the architecture, with reproducible random weights.

        Args:
            classes: outputs of its head; None: the architecture's own number.
            tensors: tensors of the checkpoints that will be loaded, where an architecture has optional parts.

        Raises:
            TaskError: the architecture does not say how many outputs, or cannot be built.
        """

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width, in pixels, of the images that the architecture is made for; None: any."""
        return None

    def transform(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Transform:
        """Prepares an image for evaluation as its library does; here: brought to ``sides``, normalised as for ImageNet.

        Args:
            size: side of square images, in pixels, in place of the library's own.
            mean: mean of each channel, of images between 0 and 1, in place of the library's own.
            std: standard deviation of each channel, in place of the library's own.

        Raises:
            TaskError: the library has no such preprocessing.
        """
        normalisation = Normalisation(tuple(mean or IMAGENET[0]), tuple(std or IMAGENET[1]))
        if size is None and self.sides is None:
            return as_stored(self.spec, normalisation)
        height, width = (size, size) if size is not None else self.sides or (224, 224)
        side = height if height == width else [height, width]
        return preset(self.spec, {"crop_size": side, "resize_size": side}, normalisation)

    def named(self, classes: Sequence[str], templates: Sequence[str] = ()) -> ModelSource:
        """Gives the same source, told what the classes are called: only a text tower asks for that.

        Args:
            classes: names, in the order of the outputs.
            templates: templates of the prompts, each with one ``{}``.

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
        if self.sides is None:
            return False
        height, width = self.sides
        module = self._sketch(2).to("meta").eval()
        with torch.device("meta"):
            try:
                module(torch.zeros(2, 3, height + 32, width + 32))
            except NotImplementedError:  # it looks at values, which meta tensors do not have
                return False
            except Exception:  # assertions, shape errors: each library has its own way to refuse
                return True
        return False

    def example(self, batch: int = 2) -> Tensor:
        """A batch of random images as the model takes them: float32, shape ``(batch, 3, height, width)``."""
        return torch.randn(batch, 3, *(self.sides or (224, 224)), generator=torch.Generator().manual_seed(0))


def chosen_for_you(spec: str, own: Normalisation, published: Mapping[str, Normalisation], write: str) -> str | None:
    """Says which weights were taken where nobody chose and mean or deviation differ; None where they agree.

    Args:
        spec: spelling of the model.
        own: the normalisation that is taken.
        published: tag → its normalisation.
        write: how a tag is chosen, with ``{}`` for it.
    """
    others = [tag for tag, said in published.items() if said != own]
    if not others:
        return None
    named = some(others, 3, counted=False)
    return (
        f"{spec}: published weights differ in mean and std; taken are {own.mean} and {own.std}. Began your models at "
        f"{named}? write {write.format(others[0])}"
    )


def preset(
    name: str,
    settings: Mapping[str, Any],
    normalisation: Normalisation,
    make: Callable[..., Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Transform:
    """The transform of a torchvision preset, ``ImageClassification`` where ``make`` says nothing else.

    Args:
        name: name of the model, for messages.
        settings: settings of the preset, besides mean and deviation.
        normalisation: mean and deviation.
        make: builds the preset.
        notes: what the user should know, a line each.
    """
    import torchvision
    from torchvision.transforms._presets import ImageClassification

    make = make or ImageClassification
    whole = make(**settings, mean=normalisation.mean, std=normalisation.std)
    plain = make(**settings, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    said = " ".join(f"{whole!r}".split())
    key = {"torchvision": torchvision.__version__, "preset": said}
    return Transform(
        name=name,
        whole=whole,
        settings=key,
        geometry=lambda image: from_unit(plain(image)),
        proposed=normalisation,
        notes=notes,
    )


def reproducible(build: Callable[[], M], seed: int = 0) -> M:
    """Calls a constructor with torch's global generator at a seed, and puts that back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def sides_of(said: Any, wrong: str) -> tuple[int, int]:
    """Reads height and width of images from one number or a list that begins with one and ends with the other.

    Args:
        said: what a configuration or the user says.
        wrong: the message where it is neither.

    Raises:
        TaskError: it is neither.
    """
    ends = (said[0], said[-1]) if isinstance(said, list | tuple) and said else (said, said)
    try:
        return int(ends[0]), int(ends[1])
    except (TypeError, ValueError):
        raise TaskError(wrong) from None

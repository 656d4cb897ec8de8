"""Image classifiers of timm and torchvision, with the preprocessing that these libraries give them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from merging.errors import TaskError, unknown
from merging.models.offline import check_built_in, offline
from merging.models.source import ModelSource, Preprocessing, reproducible
from merging.values.partition import TensorInfo


class Timm(ModelSource):
    """``timm:NAME``: any of timm's classifiers (Wightman 2019, https://github.com/huggingface/pytorch-image-models).

    Raises:
        TaskError: timm has no such model.
    """

    def __init__(self, name: str) -> None:
        import timm

        super().__init__(f"timm:{name}")
        self.name = name
        check_built_in("timm", name)
        if not timm.is_model(name):
            raise TaskError(str(unknown("timm model", name, timm.list_models())))

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds it; ``classes`` None: as many as its published weights have."""
        import timm

        del tensors
        settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        return _built(functools.partial(timm.create_model, self.name, pretrained=False, **settings), self.spec)

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """Timm's own configuration for evaluation."""
        import timm

        found = timm.get_pretrained_cfg(self.name)
        if found is None:
            return Preprocessing()
        size = int(found.input_size[-1])
        method = "bilinear" if found.interpolation == "bilinear" else "bicubic"
        return Preprocessing(tuple(found.mean), tuple(found.std), size, round(size / found.crop_pct), method)


class Torchvision(ModelSource):
    """``torchvision:NAME``: any of torchvision's image classifiers (https://docs.pytorch.org/vision/stable/models.html).

    Raises:
        TaskError: torchvision has no such classifier.
    """

    def __init__(self, name: str) -> None:
        from torchvision import models

        super().__init__(f"torchvision:{name}")
        self.name = name
        known = models.list_models(module=models)
        if name not in known:
            raise TaskError(str(unknown("torchvision classifier", name, known)))

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds it; ``classes`` None: 1000.

        Auxiliary heads (GoogLeNet, Inception) are left out where the checkpoints have none.
        """
        from torchvision import models

        settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if self.name in ("googlenet", "inception_v3"):
            auxiliary = tensors is None or any(name.lower().startswith("aux") for name in tensors)
            settings |= {"aux_logits": auxiliary, "init_weights": False}
        return _built(functools.partial(models.get_model, self.name, weights=None, **settings), self.spec)

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """The transforms of torchvision's default weights."""
        from torchvision.models import get_model_weights

        found = get_model_weights(self.name).DEFAULT.transforms()
        return Preprocessing(
            tuple(found.mean), tuple(found.std), int(found.crop_size[0]), int(found.resize_size[0]),
            found.interpolation.value,
        )  # fmt: skip


def _built(constructor: functools.partial[Any], spec: str) -> nn.Module:
    try:
        with offline():
            module = reproducible(constructor)
    except Exception as error:  # constructors raise whatever their arguments provoke
        raise TaskError(f"{spec} cannot be built: {type(error).__name__}: {error}") from error
    return module

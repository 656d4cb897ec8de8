"""Image classifiers of timm and torchvision, with the transforms that these libraries give them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from merging.errors import TaskError, raised, unknown
from merging.models.hub import timm_config
from merging.models.offline import check_built_in, offline
from merging.models.source import ModelSource, chosen_for_you, preset, reproducible, sides_of
from merging.models.transform import Normalisation, Transform, refused, whole_numbers
from merging.storage.hub.spelling import PREFIX
from merging.values.partition import TensorInfo

RESERVED = {
    "num_classes": "the number of classes is read off the checkpoints",
    "pretrained": "nothing is downloaded, and a pool's weights go in",
    "pretrained_cfg": "a tag chooses it, such as timm:vit_base_patch16_224.augreg_in21k",
    "pretrained_cfg_overlay": "mean, std and size stand in [task]",
    "checkpoint_path": "a pool's weights go in",
    "cache_dir": "nothing is downloaded",
    "progress": "nothing is downloaded",
}
"""Arguments of constructors that have another place here."""
RESCALING = ("googlenet", "inception_v3")
"""Models of torchvision that rescale their inputs where they are built with published weights."""


class Timm(ModelSource):
    """Builds ``timm:NAME``, any of timm's classifiers (Wightman 2019, https://github.com/huggingface/pytorch-image-models).

    Args:
        name: name of timm's model, perhaps with the tag of published weights, whose preprocessing is then meant; or an
            id of the Hub that begins with ``hf-hub:``, as timm writes it.
        arguments: keyword arguments of ``timm.create_model``.

    Raises:
        TaskError: timm has no such model.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        import timm

        self._saved: dict[str, Any] = {}
        own, written = dict(arguments or {}), name
        if name.startswith(PREFIX):
            written, name, config = timm_config(name, f"timm:{name}")
            own = {**config.get("model_args", {}), **own}
            self._saved = dict(config.get("pretrained_cfg") or config)
        super().__init__(f"timm:{written}", own)
        self.name = name
        check_built_in("timm", name)
        if not timm.is_model(name):
            raise unknown("timm model", name, timm.list_models(), error=TaskError)
        _check_arguments(f"timm:{name}", self.arguments)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds the classifier; ``classes`` None: as many as its published weights have."""
        import timm

        del tensors
        settings: dict[str, Any] = self.arguments if classes is None else {"num_classes": classes, **self.arguments}
        return _built(functools.partial(timm.create_model, self.name, pretrained=False, **settings), self.spec)

    @functools.cached_property
    def _published(self) -> dict[str, Any]:
        """The configuration of its published weights, or what was saved beside them; empty where there are none."""
        import timm

        if self._saved:
            return self._saved
        found: Any = timm.get_pretrained_cfg(self.name)
        return {} if found is None else dict(found.to_dict())

    @property
    def sides(self) -> tuple[int, int] | None:
        """Gives height and width in pixels: the argument ``img_size``, or those of its own configuration."""
        own = self.arguments.get("img_size")
        if own is None:
            own = (self._published.get("input_size") or (None,))[1:]
        if not own:
            return None
        return sides_of(own, f"{self.spec}: img_size is {own!r}; it is one number of pixels, or height and width")

    def transform(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Transform:
        """Timm's ``create_transform`` for evaluation, with what ``resolve_data_config`` makes of its configuration."""
        import timm
        from timm import data as timm_data

        channels = self.arguments.get("in_chans", (self._published.get("input_size") or (3,))[0])
        if channels != 3:
            return refused(self.spec, f"{self.spec} takes images of {channels} channels; pictures have three (RGB)")
        sides = (size, size) if size is not None else self.sides or (224, 224)
        prepared: Any = timm_data
        wanted = {"input_size": (3, *sides), "mean": mean, "std": std}
        settings: dict[str, Any] = prepared.resolve_data_config(wanted, pretrained_cfg=self._published)
        try:
            whole = prepared.create_transform(**settings)
            plain = prepared.create_transform(**settings, use_prefetcher=True)  # all but ToTensor and Normalize
        except Exception as error:  # settings that timm does not know
            said = raised(error, whole=True)
            raise TaskError(f"{self.spec}: timm has no transform for {settings} ({said})") from None
        key = {"timm": timm.__version__, "settings": settings, "steps": " ".join(f"{whole}".split())}
        normalisation = Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
        notes = (
            () if mean is not None or std is not None or "." in self.name or self._saved else self._notes(normalisation)
        )
        return Transform(
            name=self.spec,
            whole=whole,
            settings=key,
            geometry=lambda image: whole_numbers(plain(image)),
            proposed=normalisation,
            notes=notes,
        )

    def _notes(self, own: Normalisation) -> tuple[str, ...]:
        """Whether other tags of the name would mean another normalisation."""
        import timm

        found: dict[str, Normalisation] = {}
        for name in timm.list_pretrained(f"{self.name}.*"):
            config: Any = timm.get_pretrained_cfg(name)
            found[name.partition(".")[2]] = Normalisation(tuple(config.mean), tuple(config.std))
        said = chosen_for_you(self.spec, own, found, f"timm:{self.name}.{{}}")
        return () if said is None else (said,)


class Torchvision(ModelSource):
    """Builds ``torchvision:NAME``, any of its classifiers (https://docs.pytorch.org/vision/stable/models.html).

    Args:
        name: name of torchvision's model.
        arguments: keyword arguments of its builder; ``weights``, such as ``IMAGENET1K_V1``, chooses whose transform is
            meant.

    Raises:
        TaskError: torchvision has no such classifier, or it no such weights.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        from torchvision import models

        given = dict(arguments or {})
        super().__init__(f"torchvision:{name}", given)
        self.name = name
        known = models.list_models(module=models)
        if name not in known:
            raise unknown("torchvision classifier", name, known, error=TaskError)
        self._entries: Any = models.get_model_weights(name)
        self._wanted = given.pop("weights", None)
        if self._wanted is not None and str(self._wanted).rpartition(".")[2] not in self._entries.__members__:
            raise unknown(
                f"weights of torchvision:{name}:", str(self._wanted), self._entries.__members__, error=TaskError
            )
        self.arguments = given
        _check_arguments(f"torchvision:{name}", given)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds the classifier; ``classes`` None: 1000.

        GoogLeNet and Inception rescale their inputs first, as torchvision builds them with published weights (an
        argument, ``transform_input``, says otherwise), and have no auxiliary heads where the checkpoints have none.
        """
        from torchvision import models

        settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if self.name in RESCALING:
            auxiliary = tensors is None or any(name.lower().startswith("aux") for name in tensors)
            settings |= {"aux_logits": auxiliary, "init_weights": False, "transform_input": True}
        settings |= self.arguments
        return _built(functools.partial(models.get_model, self.name, weights=None, **settings), self.spec)

    @functools.cached_property
    def weights(self) -> Any:
        """The entry whose transform is meant.

        The one that is asked for; else the default, unless its images are not those that the model takes as it is
        built (``vit_h_14`` takes 224 pixels, its default weights 518): then the first entry that fits.
        """
        if self._wanted is not None:
            return self._entries[str(self._wanted).rpartition(".")[2]]
        default = self._entries.DEFAULT
        crop = tuple(default.transforms().crop_size)
        if tuple(default.meta.get("min_size", crop)) != (crop[0], crop[-1]):  # takes images of any size
            return default
        built = self._built_for
        fits = [entry for entry in (default, *self._entries) if built in (None, entry.transforms().crop_size[0])]
        return fits[0] if fits else default

    @functools.cached_property
    def _built_for(self) -> int | None:
        """The one size that the architecture takes, as it says of itself."""
        said = getattr(self._sketch(2), "image_size", None)
        return int(said) if isinstance(said, int) else None

    @functools.cached_property
    def sides(self) -> tuple[int, int]:
        """Gives height and width in pixels: the argument ``image_size``, or what the weights' transform cuts out."""
        if isinstance(self.arguments.get("image_size"), int):
            return (self.arguments["image_size"],) * 2
        crop = self.weights.transforms().crop_size
        return int(crop[0]), int(crop[-1])

    def transform(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Transform:
        """``weights.transforms()``; another size keeps its proportion of the shorter side to the crop."""
        own = self.weights.transforms()
        crop, resize = int(own.crop_size[0]), int(own.resize_size[0])
        side = size or self.sides[0]
        settings: dict[str, Any] = {}
        if side != crop:
            settings = {"crop_size": side, "resize_size": round(side * resize / crop)}
        normalisation = Normalisation(tuple(mean or own.mean), tuple(std or own.std))
        notes: tuple[str, ...] = ()
        if self.name in RESCALING and "transform_input" not in self.arguments:
            notes = (
                f"{self.spec} rescales its inputs, as torchvision builds it with published weights; were yours built "
                f"without any, write model = {{ torchvision = '{self.name}', transform_input = false }}",
            )
        return preset(self.spec, settings, normalisation, self.weights.transforms, notes)


def _check_arguments(spec: str, arguments: Mapping[str, Any]) -> None:
    for key in arguments:
        if key in RESERVED:
            raise TaskError(f"{spec}: leave the argument '{key}' out; {RESERVED[key]}")


def _built(constructor: functools.partial[nn.Module], spec: str) -> nn.Module:
    try:
        with offline():
            module = reproducible(constructor)
    except Exception as error:  # constructors raise whatever their arguments provoke
        if (found := re.search(r"unexpected keyword argument '(\w+)'", str(error))) is not None:
            raise TaskError(f"{spec} has no argument '{found[1]}' ({error})") from error
        said = raised(error, whole=True)
        raise TaskError(f"{spec} cannot be built: {said}") from error
    return module

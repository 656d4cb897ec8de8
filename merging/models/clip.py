"""The classifier of the model-soups release: a CLIP image tower, its features normalised, a linear head.

The text tower's blocks are dropped (``model.transformer.*``) and its other tensors are kept, unused, as in the
published checkpoints: ViT-B/32 then has 160 keys (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482; Fassold
2023 partitions exactly these). Models whose text tower is an object of its own (SigLIP: ``model.text.*``) keep the
image tower alone. No weights are downloaded here: an architecture is built, a pool's weights go in. Whole CLIPs get a
zero-shot head instead (:mod:`merging.models.zero_shot`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor, nn
from torch.nn import functional as F

from merging.errors import PoolError, TaskError, raised, unknown
from merging.models.offline import check_built_in
from merging.models.source import ModelSource, chosen_for_you, reproducible, sides_of
from merging.models.spelling import allowed
from merging.models.transform import Normalisation, Transform, from_unit
from merging.models.zero_shot import TEMPLATES, from_disk, has_text_tower, is_apart, local, zero_shot_clip
from merging.values.partition import TensorInfo

TEXT_LEFTOVERS = ("positional_embedding", "text_projection", "logit_scale", "token_embedding", "ln_final")
"""Names what is left of the text tower in the published checkpoints; it reaches no logit."""


class ClipClassifier(nn.Module):
    """Classifies by ``logits = classification_head(image_features / |image_features|)``.

    Args:
        clip: a module whose ``visual`` is an image tower.
        width: length of the features, open_clip's ``embed_dim``.
        classes: number of output classes.

    Shapes:
        images ``(N, 3, H, W)`` float, already normalised; logits ``(N, classes)``.
    """

    def __init__(self, clip: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.model = clip
        self.classification_head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of a batch of images."""
        features = F.normalize(self.model.visual(images), dim=-1)  # type: ignore[operator]
        logits: Tensor = self.classification_head(features)
        return logits

    def forward_steps(self) -> list[Callable[[Tensor], Tensor]]:
        """Gives the parts of :meth:`forward` in order, see :mod:`merging.forward.stages`."""
        visual: Any = self.model.visual
        return [visual, functools.partial(F.normalize, dim=-1), self.classification_head]


class _Tower(nn.Module):
    """An image tower alone, under the name that it has in a CLIP, and the scalars that checkpoints may carry."""

    def __init__(self, visual: nn.Module, scalars: Collection[str]) -> None:
        super().__init__()
        self.visual = visual
        for name in scalars:
            self.register_parameter(name, nn.Parameter(torch.zeros([])))


def clip_classifier(
    config: dict[str, Any], classes: int, *, tensors: Collection[str] | None = None, seed: int = 0
) -> ClipClassifier:
    """Builds the classifier from an open_clip model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``, …).

    Initial weights are random but reproducible: the global generator is restored afterwards.

    Args:
        config: the configuration, as open_clip's ``get_model_config`` returns it.
        classes: number of output classes.
        tensors: names in the checkpoints that will be loaded; text blocks are kept, and the text tower's
            leftovers dropped, as these names say. None: the model-soups layout.
        seed: seed of the initial weights.
    """
    if "multimodal_cfg" in config:
        raise TaskError("CoCa's image tower gives tokens besides its features; it is not a classifier's backbone")
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    wanted = local({key: config[key] for key in keys if key in config})
    apart = is_apart(config)
    text = tensors is not None and any(name.startswith(("model.transformer.", "model.text.")) for name in tensors)

    def build() -> ClipClassifier:
        clip: nn.Module
        if apart and not text:
            vision = CLIPVisionCfg(**config["vision_cfg"])
            scalars = [n for n in ("logit_scale", "logit_bias") if f"model.{n}" in (tensors or ())]
            clip = _Tower(_build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False)), scalars)
        elif apart:
            bias = {"init_logit_bias": config["init_logit_bias"]} if "init_logit_bias" in config else {}
            clip = from_disk(functools.partial(open_clip.CustomTextCLIP, **wanted, **bias))
        else:
            clip = open_clip.CLIP(**wanted)
            if not text:
                del clip.transformer
        return ClipClassifier(clip, config["embed_dim"], classes)

    classifier = reproducible(build, seed)
    if tensors is not None and not apart:
        present = {name.split(".")[1] for name in tensors if name.startswith("model.")}
        for leftover in TEXT_LEFTOVERS:
            if leftover not in present:
                delattr(classifier.model, leftover)
    return classifier


class OpenClip(ModelSource):
    """Builds ``open_clip:NAME``: :class:`ClipClassifier` on one of open_clip's image towers.

    OpenAI's weights, and with them model-soups' 72 checkpoints, were trained with QuickGELU: they need
    ``ViT-B-32-quickgelu``. Plain ``ViT-B-32`` loads them strictly too, and scores wrongly in silence.

    Args:
        name: name of open_clip's model.
        classes: names of the classes, for the head of whole CLIPs.
        templates: templates of the prompts; default: "a photo of a {}.".
        arguments: ``pretrained``, the tag of published weights whose preprocessing is meant (default: the first), and
            ``force_image_size``, ``force_quick_gelu``, ``force_patch_dropout``, as ``open_clip.create_model`` has them.

    Raises:
        TaskError: open_clip has no such model, tag or argument.
    """

    HEAD = "classification_head.weight"

    def __init__(
        self,
        name: str,
        classes: Sequence[str] = (),
        templates: Sequence[str] = (),
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"open_clip:{name}", arguments)
        self.name = name
        self.class_names, self.templates = tuple(classes), tuple(templates)
        check_built_in("open_clip", name)
        config = open_clip.get_model_config(name)
        if config is None:
            raise unknown("open_clip model", name, open_clip.list_models(), error=TaskError)
        allowed(f"open_clip:{name}", self.arguments, ARGUMENTS)
        tags = open_clip.list_pretrained_tags_by_model(name)
        self._tag = self.arguments.get("pretrained", tags[0] if tags else None)
        if "pretrained" in self.arguments and self._tag not in tags:
            raise unknown(f"tag of open_clip:{name}:", str(self._tag), tags, error=TaskError)
        self.config: dict[str, Any] = _configured(config, self.arguments)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> ClipClassifier:
        """Builds the classifier; an image tower alone says nothing about classes, so they must be given."""
        if classes is None:
            raise TaskError(f"{self.spec} is an image tower; say how many classes its linear head has (`classes`)")
        try:
            return clip_classifier(self.config, classes, tensors=tensors)
        except (TypeError, ValueError, ZeroDivisionError) as error:  # of arguments that nobody has checked
            raise TaskError(f"{self.spec} cannot be built: {raised(error, whole=True)}") from error

    def heads(self, tensors: Mapping[str, TensorInfo] | None = None) -> dict[str, int]:
        """Names the linear head and its axis of classes."""
        del tensors
        return {self.HEAD: 0}

    def named(self, classes: Sequence[str], templates: Sequence[str] = ()) -> OpenClip:
        """Gives this source with class names: whole CLIPs then need no head, the text tower makes it."""
        return OpenClip(self.name, classes, templates, self.arguments)

    def build(self, pool: Any) -> nn.Module:
        """Builds it for checkpoints in the layout of model-soups, or for whole CLIPs, whose head is zero-shot.

        Raises:
            PoolError: they have another layout, or are whole CLIPs and nobody has named the classes.
        """
        if self.HEAD not in pool.tensors and has_text_tower(pool.tensors):
            if not self.class_names:
                raise PoolError(
                    f"{pool.checkpoints[0].path} has a text tower and no head: give the classes' names for a zero-shot "
                    'head (classes = ["…", "…"])'
                )
            return zero_shot_clip(self.name, self.config, self.class_names, self.templates or TEMPLATES)
        if self.HEAD not in pool.tensors:
            raise PoolError(
                f"{pool.checkpoints[0].path} has no '{self.HEAD}'; {self.spec} takes checkpoints in the layout of "
                "model-soups (model.visual.…, classification_head.weight and .bias)"
            )
        return super().build(pool)

    @property
    def sides(self) -> tuple[int, int]:
        """Gives height and width of the image tower's pictures, in pixels."""
        size = self.config["vision_cfg"]["image_size"]
        return sides_of(size, f"{self.spec}: its image size is {size!r}; it is one number, or height and width")

    def transform(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Transform:
        """open_clip's ``image_transform_v2`` for evaluation, with what the published weights say (SigLIP squashes)."""
        overridden = mean is not None or std is not None
        published = open_clip.get_pretrained_cfg(self.name, self._tag) if self._tag else {}
        wanted = merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), published), {"mean": mean, "std": std})
        wanted["size"] = size or (self.sides[0] if self.sides[0] == self.sides[1] else self.sides)
        config = PreprocessCfg(**wanted)
        mean, std = ((value,) * 3 if isinstance(value, int | float) else value for value in (config.mean, config.std))
        whole = image_transform_v2(config, is_train=False)
        plain = image_transform_v2(replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), is_train=False)
        key = {"open_clip": open_clip.__version__, "settings": wanted}
        normalisation = Normalisation(tuple(mean), tuple(std))
        notes = () if overridden or "pretrained" in self.arguments else self._notes(normalisation)
        return Transform(
            name=self.spec,
            whole=whole,
            settings=key,
            geometry=lambda image: from_unit(plain(image)),
            proposed=normalisation,
            notes=notes,
        )

    def _notes(self, own: Normalisation) -> tuple[str, ...]:
        """Whether other tags of the name would mean another normalisation."""
        found: dict[str, Normalisation] = {}
        for tag in open_clip.list_pretrained_tags_by_model(self.name):
            config = PreprocessCfg(
                **merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(self.name, tag))
            )
            found[tag] = Normalisation(tuple(config.mean), tuple(config.std))
        write = f"model = {{{{ open_clip = '{self.name}', pretrained = '{{}}' }}}}"
        said = chosen_for_you(self.spec, own, found, write)
        return () if said is None else (said,)


ARGUMENTS = ("pretrained", "force_image_size", "force_quick_gelu", "force_patch_dropout")


def _configured(config: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture's configuration with what ``open_clip.create_model`` would force upon it."""
    tower = dict(config["vision_cfg"])
    if "force_image_size" in arguments:
        tower["image_size"] = arguments["force_image_size"]
    if "force_patch_dropout" in arguments:
        tower["patch_dropout"] = arguments["force_patch_dropout"]
    quick = {"quick_gelu": True} if arguments.get("force_quick_gelu") else {}
    return {**config, "vision_cfg": tower, **quick}

"""Zero-shot CLIP: the classifier's head is what the text tower says of the classes' names.

``logits = exp(logit_scale) · f(image) · headᵀ``, with ``head[c]`` the normalised mean over templates of the normalised
features of "a photo of a {c}." (Radford et al. 2021, https://arxiv.org/abs/2103.00020, §3.1.4). Model-soups' and the
paper's fine-tuning starts from a linear layer with these weights (Wortsman et al. 2022, §3).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from merging.errors import TaskError
from merging.models.offline import offline, reason
from merging.models.source import reproducible
from merging.moved import forwarding
from merging.values.partition import TensorInfo

TEMPLATES = ("a photo of a {}.",)
"""Where a task gives none."""
_TEXTS = 256
"""Texts that the tower reads at once."""


def has_text_tower(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether checkpoints are whole CLIPs, in open_clip's own names."""
    return any(name.startswith(("transformer.", "text.")) for name in tensors) and "logit_scale" in tensors


def tokens(name: str, config: Mapping[str, Any], classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The prompts' token ids, int64, shape ``(classes, templates, context)``.

    Args:
        name: of open_clip's model.
        config: its configuration.
        classes: names; underscores count as spaces.
        templates: each with one ``{}``.

    Raises:
        TaskError: a template without ``{}``, or a model whose tokenizer would have to be downloaded.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise TaskError(f"template '{template}' needs one {{}}, the place of the class's name")
    if config["text_cfg"].get("hf_tokenizer_name") or "siglip" in name.lower():
        raise TaskError(
            f"open_clip:{name} has a tokenizer that is downloaded, so its text tower cannot name classes here; bring "
            "checkpoints with a linear head"
        )
    texts = [template.replace("{}", each.replace("_", " ")) for each in classes for template in templates]
    found: Tensor = open_clip.get_tokenizer(name)(texts)
    return found.view(len(classes), len(templates), -1)


class _ZeroShot(nn.Module):
    """What both kinds of CLIP get: images to logits. State dict and names stay open_clip's own.

    Shapes:
        images ``(N, 3, H, W)`` float, already normalised; logits ``(N, classes)``.
    """

    prompts: Tensor
    _kept: tuple[list[Tensor], Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of a batch of images."""
        clip: Any = self
        features = F.normalize(clip.encode_image(images), dim=-1)
        logits: Tensor = clip.logit_scale.exp() * features @ self.head().to(features.dtype).T
        return logits if clip.logit_bias is None else logits + clip.logit_bias

    def head(self) -> Tensor:
        """The classes' features, shape ``(classes, width)``, of length 1.

        Computed anew whenever a weight of the text tower has changed, which is looked up by value: mixes are written
        in place. With gradients, always.
        """
        if torch.is_grad_enabled():
            return self._read()
        weights = [p for name, p in self.named_parameters() if not name.startswith("visual.")]
        if self._kept is None or not all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
            for a, b in zip(self._kept[0], weights, strict=True)
        ):
            self._kept = [w.detach().clone() for w in weights], self._read()
        return self._kept[1]

    def _read(self) -> Tensor:
        clip: Any = self
        classes, templates, length = self.prompts.shape
        texts = self.prompts.view(-1, length).split(_TEXTS)
        features = torch.cat([clip.encode_text(part, normalize=True) for part in texts])
        return F.normalize(features.view(classes, templates, -1).mean(1), dim=-1)


class ZeroShotClip(_ZeroShot, open_clip.CLIP):  # type: ignore[misc]
    """A CLIP whose text tower's parts lie beside ``visual``."""


class ZeroShotCustomClip(_ZeroShot, open_clip.CustomTextCLIP):  # type: ignore[misc]
    """A CLIP whose text tower is ``text``."""


def is_apart(config: Mapping[str, Any]) -> bool:
    """Whether an architecture's text tower is an object of its own, ``text``; else its parts lie beside ``visual``."""
    return bool(config.get("custom_text")) or "hf_model_name" in config["text_cfg"]


def local(config: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture's configuration, its towers without weights of somebody else, which would be downloaded."""
    text = {"text_cfg": {**config["text_cfg"], "hf_model_pretrained": False}} if "text_cfg" in config else {}
    return {**config, **text}


def from_disk(build: functools.partial[nn.Module]) -> nn.Module:
    """Builds a CLIP; one whose text tower is a model of the Hub only where its configuration is on this disk.

    Raises:
        TaskError: it is not.
    """
    with offline():
        try:
            return build()
        except Exception as error:  # each library has its own way to say that something is missing
            raise TaskError(f"this CLIP cannot be built: {reason(error)}") from error


def zero_shot_clip(
    name: str, config: Mapping[str, Any], classes: Sequence[str], templates: Sequence[str], *, seed: int = 0
) -> nn.Module:
    """Builds the classifier, with reproducible random weights (arguments as for :func:`tokens`)."""
    prompts = tokens(name, config, classes, templates)
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias")
    kind: type[nn.Module] = ZeroShotCustomClip if is_apart(config) else ZeroShotClip
    wanted = local({key: config[key] for key in keys if key in config})
    clip = reproducible(functools.partial(from_disk, functools.partial(kind, **wanted)), seed)
    clip.register_buffer("prompts", prompts, persistent=False)
    return clip


__getattr__ = forwarding(__name__)  # linear_start has moved

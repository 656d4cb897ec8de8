"""Zero-shot CLIP: the classifier's head is what the text tower says of the classes' names.

``logits = exp(logit_scale) · f(image) · headᵀ``, with ``head[c]`` the normalised mean over templates of the normalised
features of "a photo of a {c}." (Radford et al. 2021, https://arxiv.org/abs/2103.00020, §3.1.4). Model-soups' and the
paper's fine-tuning starts from a linear layer with these weights (Wortsman et al. 2022, §3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from merging.errors import PoolError, TaskError
from merging.storage.checkpoint import Checkpoint
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


def zero_shot_clip(
    name: str, config: Mapping[str, Any], classes: Sequence[str], templates: Sequence[str], *, seed: int = 0
) -> nn.Module:
    """Builds the classifier, with reproducible random weights (arguments as for :func:`tokens`)."""
    prompts = tokens(name, config, classes, templates)
    apart = bool(config.get("custom_text")) or "hf_model_name" in config["text_cfg"]
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = ZeroShotCustomClip if apart else ZeroShotClip
        clip: nn.Module = kind(**{key: config[key] for key in keys if key in config})
    clip.register_buffer("prompts", prompts, persistent=False)
    return clip


def linear_start(
    checkpoint: Checkpoint | Path | str, name: str, classes: Sequence[str], templates: Sequence[str], output: Path | str
) -> None:
    """Writes the start of fine-tuning in the layout of model-soups: the image tower and the zero-shot head, linear.

    ``classification_head.weight = exp(logit_scale) · head``, its bias 0: the same logits as :class:`ZeroShotClip`.

    Args:
        checkpoint: a whole CLIP in open_clip's names.
        name: of open_clip's model, such as ``ViT-B-32-quickgelu``.
        classes: names of the classes, in the order of the outputs.
        templates: such as ``["a photo of a {}."]``.
        output: the ``.safetensors`` file.

    Raises:
        PoolError: the checkpoint has no text tower, or another architecture's.
        TaskError: no such model, or a bad template.
    """
    from merging.models.clip import TEXT_LEFTOVERS, OpenClip

    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    if not has_text_tower(checkpoint.tensors):
        raise PoolError(f"{checkpoint.path} has no text tower in open_clip's names (transformer.… or text.…)")
    clip: Any = zero_shot_clip(name, OpenClip(name).config, classes, templates)
    state = checkpoint.load()
    try:
        clip.load_state_dict(state)
    except RuntimeError as error:
        raise PoolError(f"{checkpoint.path} is no open_clip:{name} ({str(error).splitlines()[-1].strip()})") from None
    with torch.no_grad():
        weight = clip.eval().logit_scale.exp() * clip.head()
    kept = {f"model.{n}": t for n, t in state.items() if n.startswith("visual.") or n.split(".")[0] in TEXT_LEFTOVERS}
    bias = torch.zeros(len(classes)) if clip.logit_bias is None else clip.logit_bias.detach().expand(len(classes))
    head = {"classification_head.weight": weight, "classification_head.bias": bias}
    save_file({n: t.contiguous().clone() for n, t in {**kept, **head}.items()}, output)

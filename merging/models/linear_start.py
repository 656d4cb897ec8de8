"""A linear classifier on a backbone's features, from which fine-tuning starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from merging.errors import PoolError
from merging.models.zero_shot import has_text_tower, zero_shot_clip
from merging.storage.atomic import replacing, save_safetensors
from merging.storage.checkpoint import Checkpoint


def linear_start(
    checkpoint: Checkpoint | Path | str, name: str, classes: Sequence[str], templates: Sequence[str], output: Path | str
) -> None:
    """Writes the start of fine-tuning in the layout of model-soups: the image tower and the zero-shot head, linear.

    ``classification_head.weight = exp(logit_scale) · head``, its bias 0: the same logits as :class:`ZeroShotClip`.

    Args:
        checkpoint: a whole CLIP in open_clip's names.
        name: name of open_clip's model, such as ``ViT-B-32-quickgelu``.
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
    with replacing(Path(output)) as aside:
        save_safetensors(aside, {n: t.contiguous().clone() for n, t in {**kept, **head}.items()})

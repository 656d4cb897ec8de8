"""What a checkpoint's own file says of the model's training: hyper-parameters under short names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merging.errors import showable
from merging.storage.settings_inside import flat

NAMES = {
    "lr": ("learning_rate", "lr", "base_lr", "peak_lr"),
    "wd": ("weight_decay", "wd"),
    "epochs": ("epochs", "num_epochs", "max_epochs", "num_train_epochs"),
    "steps": ("max_steps",),
    "batch": ("batch_size", "train_batch_size", "per_device_train_batch_size"),
    "optimizer": ("optimizer", "opt", "optim"),
    "momentum": ("momentum",),
    "schedule": ("schedule", "sched", "scheduler", "lr_scheduler", "lr_scheduler_type"),
    "warmup": ("warmup", "warmup_epochs", "warmup_steps", "warmup_ratio"),
    "augmentation": ("augmentation", "aug", "aa"),
    "erasing": ("erasing", "reprob"),
    "mixup": ("mixup", "mixup_alpha"),
    "cutmix": ("cutmix", "cutmix_alpha"),
    "smoothing": ("label_smoothing", "smoothing", "label_smoothing_factor"),
    "drop": ("dropout", "drop"),
    "drop path": ("drop_path",),
    "clip": ("clip", "clip_grad", "max_grad_norm"),
    "rank": ("rank", "lora_rank", "lora_r"),
    "alpha": ("alpha", "lora_alpha"),
    "layer decay": ("layer_decay",),
    "seed": ("seed", "random_seed"),
}
"""Short name → what training programs call it, in the order in which tables show them."""
SHORT = {name: kept for kept, names in NAMES.items() for name in names}
"""Name in a training program → short name."""
_PLACES = frozenset(
    {"args", "hyper_parameters", "hparams", "config", "cfg", "settings", "opts", "train_args", "training_args"}
)
"""Where checkpoints keep them; what stands elsewhere, such as a model's own settings, is another thing."""
_LONGEST = 60
"""Characters of a value."""
_HUGE = 1e15


def trained_in(content: Any) -> dict[str, str | float | int | bool]:
    """The hyper-parameters in what a training program saved, or in a safetensors file's metadata.

    >>> import argparse
    >>> trained_in({"args": argparse.Namespace(lr=0.1, model="resnet18", opt="sgd"), "epoch": 3, "seed": "7"})
    {'lr': 0.1, 'optimizer': 'sgd', 'seed': 7}
    """
    found: dict[str, Any] = {}
    for path, value in flat(content):
        *places, name = path.split(".")
        if len(places) < 2 and set(places) <= _PLACES:
            found.setdefault(name, value)
    return shortened(found)


def shortened(settings: Mapping[str, Any]) -> dict[str, str | float | int | bool]:
    """The known ones among settings, by their short names; what is no plain value is left out."""
    found: dict[str, str | float | int | bool] = {}
    for name, value in settings.items():
        kept = SHORT.get(str(name))
        if kept is None or kept in found:
            continue
        plain = scalar(value) if isinstance(value, str) else value
        if isinstance(plain, str) and plain and len(plain) <= _LONGEST:
            found[kept] = showable(plain)
        elif isinstance(plain, bool | int | float) and abs(plain) < _HUGE:  # NaN is not either
            found[kept] = plain
    return found


def scalar(text: str) -> Any:
    """A value that is written as text, in YAML or in metadata: a number, true or false, else the text itself."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    words: dict[str, bool | None] = {"true": True, "false": False} | dict.fromkeys(("null", "none", "~", "[]", "{}"))
    if text.lower() in words:
        return words[text.lower()]
    if len(text) > _LONGEST:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

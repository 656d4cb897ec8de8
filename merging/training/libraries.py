"""What timm brings to a run: optimizers, schedules, mixup and CutMix, random erasing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import OptionError, unknown
from merging.forward.device import on_device
from merging.training.augment import augmentation
from merging.training.hyperparameters import HyperParameters

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers that torch has in one kernel for all parameters on CUDA."""


def check_names(optimizers: Iterable[str], augmentations: Iterable[str]) -> None:
    """Raises OptionError where timm has no such optimizer, or there is no such augmentation."""
    known = [str(name) for name in importlib.import_module("timm.optim").list_optimizers()]
    for name in optimizers:
        if name not in known:
            raise unknown("optimizer of timm", name, known, error=OptionError)
    for name in augmentations:
        augmentation(name)


def optimizer_of(module: nn.Module, settings: HyperParameters) -> torch.optim.Optimizer:
    """The optimizer of a module's trainable parameters; biases and norms without weight decay.

    On CUDA those of torch that can be are fused: one kernel for all parameters.
    """
    make: Callable[..., torch.optim.Optimizer] = importlib.import_module("timm.optim").create_optimizer_v2
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    made = make(module, settings.optimizer, **rates)
    there = [parameter.is_cuda for group in made.param_groups for parameter in group["params"]]
    if type(made) in FUSED and there and all(there):
        return make(module, settings.optimizer, **rates, fused=True)
    return made


def schedule_of(optimizer: torch.optim.Optimizer, settings: HyperParameters, steps: int) -> Any:
    """The schedule, updated step by step; None where the learning rate is constant from the start.

    Args:
        optimizer: the optimizer whose learning rate it sets.
        settings: settings of the run.
        steps: batches of an epoch.
    """
    if settings.schedule == "constant" and not settings.warmup:
        return None
    kind = "step" if settings.schedule == "constant" else settings.schedule  # one step, never reached
    schedule, _ = importlib.import_module("timm.scheduler").create_scheduler_v2(
        optimizer,
        kind,
        num_epochs=settings.epochs,
        decay_epochs=settings.epochs + 1,
        warmup_lr=0.0,
        warmup_epochs=min(settings.warmup, settings.epochs),
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule


def mixup_of(settings: HyperParameters, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Inputs and labels → mixed inputs and soft targets; None where nothing is mixed."""
    if not (settings.mixup or settings.cutmix):
        return None
    mixup: Any = importlib.import_module("timm.data").Mixup(
        settings.mixup, settings.cutmix, label_smoothing=settings.label_smoothing, num_classes=classes
    )

    def mix(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not inputs.is_floating_point():
            raise OptionError("mixup and cutmix blend images; give `mixup=0` and `cutmix=0` for texts")
        mixed, targets = mixup(inputs.clone(), labels)  # timm mixes in place
        return mixed, on_device(targets, mixed.device)

    return mix


def erasing_of(settings: HyperParameters, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """Random erasing of prepared images; None where there is none."""
    if not settings.erasing:
        return None
    erasing: Any = importlib.import_module("timm.data.random_erasing")
    made: Callable[[Tensor], Tensor] = erasing.RandomErasing(settings.erasing, mode="pixel", device=device.type)
    return made

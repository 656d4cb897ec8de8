"""One fine-tuning run: timm's optimizers, schedules and mixup over a task's training data."""

from __future__ import annotations

import contextlib
import importlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from merging.errors import OptionError, Stopped, TaskError, unknown
from merging.numerics import Numerics
from merging.task import Split, Task
from merging.training.augment import augmentation
from merging.training.hyperparameters import HyperParameters


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    Attributes:
        number: counted from 1.
        loss: mean training loss.
        held_out: top-1 accuracy.
    """

    number: int
    loss: float
    held_out: float


def train(
    module: nn.Module,
    task: Task,
    settings: HyperParameters,
    *,
    numerics: Numerics,
    only: frozenset[str] | None = None,
    advance: Callable[[int], None] = lambda steps: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Epoch]:
    """Trains a module in place, and tells what each epoch brought.

    The same settings give the same bits on the CPU. On CUDA the forward pass runs in bf16 (autocast).

    Args:
        module: on any device; it is moved.
        task: its ``train`` data, and held-out data to look at.
        settings: of the run.
        numerics: device, threads, batch of held-out passes.
        only: names of the parameters that are trained; None: all.
        advance: told the steps that were made.
        should_stop: asked before each step.

    Raises:
        TaskError: the task has no training data.
        OptionError: no such optimizer or augmentation.
        Stopped: ``should_stop`` said so.
    """
    if task.train is None:
        raise TaskError(f"task '{task.name}' has no training data; give [task] train")
    check_names([settings.optimizer], [settings.augmentation])
    data, device = task.train, torch.device(numerics.device)
    size = min(settings.batch_size, len(data) - len(data) % 2)  # timm's mixup pairs samples
    steps = len(data) // size
    change, classes = augmentation(settings.augmentation), _classes(module, task, device)
    layout = torch.channels_last if numerics.layout == "channels_last" else torch.contiguous_format
    module.to(device).to(memory_format=layout)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and (only is None or name in only))
    with seeded(settings.seed):
        optimizer, schedule = _optimizer(module, settings, steps)
        mix, erase = _mixup(settings, classes), _erasing(settings, device)
        done = 0
        for number in range(1, settings.epochs + 1):
            module.train()
            order, total = torch.randperm(len(data)), 0.0
            for step in range(steps):
                if should_stop():
                    raise Stopped("interrupted")
                chosen = order[step * size : (step + 1) * size]
                stored = data.inputs[chosen]
                inputs = task.prepare((change(stored) if change else stored).to(device))
                labels = data.labels[chosen].to(device)
                inputs = erase(inputs) if erase else inputs
                inputs, targets = mix(inputs, labels) if mix else (inputs, labels)
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    logits = data.project(module(inputs))
                smoothing = 0.0 if mix else settings.label_smoothing
                loss = cross_entropy(logits.float(), targets, label_smoothing=smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if settings.clip is not None:
                    nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
                optimizer.step()
                done += 1
                if schedule is not None:
                    schedule.step_update(done)
                total += float(loss.detach())
                advance(1)
            yield Epoch(number, total / steps, accuracy(module, task, task.held_out, numerics))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def accuracy(module: nn.Module, task: Task, split: Split, numerics: Numerics) -> float:
    """Top-1 accuracy on a split; leaves the module in evaluation mode."""
    module.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(split), numerics.batch):
            part = slice(start, start + numerics.batch)
            logits = split.project(module(task.prepare(split.inputs[part].to(numerics.device))))
            right += int((logits.argmax(1).cpu() == split.labels[part]).sum())
    return right / len(split)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All three global generators (timm's augmentations use Python's and NumPy's), put back afterwards."""
    before, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(arrays)


def _classes(module: nn.Module, task: Task, device: torch.device) -> int:
    module.to(device).eval()
    with torch.inference_mode():
        logits = task.held_out.project(module(task.prepare(task.held_out.inputs[:2].to(device))))
    return int(logits.shape[1])


def check_names(optimizers: Iterable[str], augmentations: Iterable[str]) -> None:
    """Raises OptionError where timm has no such optimizer, or there is no such augmentation."""
    known = [str(name) for name in importlib.import_module("timm.optim").list_optimizers()]
    for name in optimizers:
        if name not in known:
            raise OptionError(str(unknown("optimizer of timm", name, known)))
    for name in augmentations:
        augmentation(name)


def _optimizer(module: nn.Module, settings: HyperParameters, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optim, schedulers = importlib.import_module("timm.optim"), importlib.import_module("timm.scheduler")
    optimizer: torch.optim.Optimizer = optim.create_optimizer_v2(
        module, settings.optimizer, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    if settings.schedule == "constant" and not settings.warmup:
        return optimizer, None
    kind = "step" if settings.schedule == "constant" else settings.schedule  # one step, never reached
    schedule, _ = schedulers.create_scheduler_v2(
        optimizer, kind, num_epochs=settings.epochs, decay_epochs=settings.epochs + 1, warmup_lr=0.0,
        warmup_epochs=min(settings.warmup, settings.epochs), step_on_epochs=False, updates_per_epoch=steps,
    )  # fmt: skip
    return optimizer, schedule


def _mixup(settings: HyperParameters, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    if not (settings.mixup or settings.cutmix):
        return None
    mixup: Any = importlib.import_module("timm.data").Mixup(
        settings.mixup, settings.cutmix, label_smoothing=settings.label_smoothing, num_classes=classes
    )

    def mix(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, targets = mixup(inputs.clone(), labels)  # timm mixes in place
        return mixed, targets.to(mixed.device)

    return mix


def _erasing(settings: HyperParameters, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    if not settings.erasing:
        return None
    erasing: Any = importlib.import_module("timm.data.random_erasing")
    made: Callable[[Tensor], Tensor] = erasing.RandomErasing(settings.erasing, mode="pixel", device=device.type)
    return made


def steps_of(task: Task, settings: HyperParameters) -> int:
    """How many steps a run makes."""
    count = len(task.train) if task.train is not None else 0
    return settings.epochs * (count // max(1, min(settings.batch_size, count - count % 2))) if count else 0

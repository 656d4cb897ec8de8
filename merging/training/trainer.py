"""One fine-tuning run, step by step; a regime decides what happens between the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from merging.errors import Diverged, Stopped, StopReason, TaskError
from merging.forward.device import batch_for, on_device
from merging.forward.fitting import check_logits
from merging.forward.numerics import Numerics
from merging.forward.recalibration import SAMPLES, batch_norms, equal_batches, recalibrate, several_values
from merging.plugins.task import Split, Task
from merging.training.adapters import Adapted
from merging.training.hyperparameters import HyperParameters
from merging.training.libraries import check_names, erasing_of, mixup_of, optimizer_of, schedule_of
from merging.training.randomness import Randomness
from merging.training.samples import Samples
from merging.values.outcome import answered


class Run:
    """A module that is being trained.

    The same settings give the same bits on the CPU, also when several runs take turns in one process. On CUDA the
    forward pass runs in bf16 (autocast), what is drawn is the same each time, and no step waits for the device: only
    the end of an epoch does, for its loss.

    Args:
        module: the model, on any device; it is moved, and trained in place.
        task: its ``train`` data, and held-out data to look at.
        settings: settings of the run.
        numerics: device, threads, batch of held-out passes.
        only: names of the parameters that are trained; None: all, or those of the module's adapter.
        advance: told the steps that were made.
        should_stop: asked before each step.
        samples: the training data on the device, where several runs share them.

    Attributes:
        steps: batches of an epoch.
        scheduled: the learning rate that the schedule has for the next step.
        done: batches so far.
        loss: mean training loss of the epoch that was finished last.
        facts: what a regime wants to have in the model's record.

    Raises:
        TaskError: the task has no training data.
        OptionError: no such optimizer or augmentation.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        settings: HyperParameters,
        *,
        numerics: Numerics,
        only: frozenset[str] | None = None,
        advance: Callable[[int], None] = lambda steps: None,
        should_stop: Callable[[], bool] = lambda: False,
        samples: Samples | None = None,
    ) -> None:
        self._data = task.training
        check_names([settings.optimizer], [settings.augmentation])
        self.module, self.task, self.settings, self.numerics = module, task, settings, numerics
        self.facts: dict[str, Any] = module.facts() if isinstance(module, Adapted) else {}
        self.done, self.loss = 0, float("nan")
        self._device = torch.device(numerics.device)
        self._size = batch_size(task, settings)
        self.steps = len(self._data) // self._size
        on_device(module, self._device, numerics.layout)
        only = module.trained if isinstance(module, Adapted) and only is None else only
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(parameter.is_floating_point() and (only is None or name in only))
        self.optimizer = optimizer_of(module, settings)
        self._schedule = schedule_of(self.optimizer, settings, self.steps)
        self.scheduled = self.rate
        self._samples = Samples.on(self._data, self._device) if samples is None else samples
        self._epoch: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._drawn = -1  # the batch that it gives next, where it is not used up
        self._mix = mixup_of(settings, _classes(module, task, numerics))
        self._erase = erasing_of(settings, self._device)
        self._random = Randomness(settings.seed, self._device)
        self._order = torch.empty(0, dtype=torch.int64)
        self._losses: float | Tensor = 0.0
        self._advance, self._should_stop = advance, should_stop

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.done >= self.steps * self.settings.epochs

    @property
    def epoch(self) -> float:
        """Counts the epochs that are done; at the end of one, a whole number."""
        return self.done / self.steps

    @property
    def rate(self) -> float:
        """The learning rate of the next step: what is scheduled, unless a regime sets another."""
        return float(self.optimizer.param_groups[0]["lr"])

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> None:
        """Takes one batch and makes one step of the optimizer."""
        self.optimizer.zero_grad(set_to_none=True)
        self.gradients()
        self.update()
        self.next()

    def gradients(self) -> None:
        """Adds the gradients of the next batch to ``.grad``.

        Raises:
            Stopped: ``should_stop`` said so; the batch has not been drawn.
        """
        if self._should_stop():
            raise Stopped(StopReason.INTERRUPTED)
        if not self.module.training:
            self.module.train()
        with self._random.used():
            inputs, targets, smoothing = self._batch()
            mixed = torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda")
            with mixed, several_values():
                logits = self._data.project(self.module(inputs))
            loss = cross_entropy(logits.float(), targets, label_smoothing=smoothing)
            loss.backward()
        # summed in float64 on a GPU as on the CPU, and fetched from there once an epoch
        self._losses = self._losses + (loss.detach().double() if loss.is_cuda else float(loss.detach()))

    def update(self) -> None:
        """Makes one step of the optimizer along the gradients, which are clipped."""
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()

    def next(self) -> None:
        """The batch is done: counts it, and sets the learning rate for the next.

        Raises:
            Diverged: at the end of an epoch whose loss is not finite.
        """
        self.done += 1
        if self._schedule is not None:
            self._schedule.step_update(self.done)
            self.scheduled = self.rate
        if self.done % self.steps == 0:
            self.loss, self._losses = float(self._losses) / self.steps, 0.0
            if not math.isfinite(self.loss):
                raise Diverged(f"diverged: the loss of epoch {self.done // self.steps} is {self.loss:g}")
        self._advance(1)

    def held_out(self) -> float:
        """Measures top-1 accuracy on the held-out data, a fraction."""
        return accuracy(self.module, self.task, self.task.held_out, self.numerics)

    def recalibrate(self) -> None:
        """Measures BatchNorm statistics anew on training data as it is stored; nothing for a module without its own."""
        if not batch_norms(self.module) or isinstance(self.module, Adapted):
            return
        count = min(SAMPLES, len(self._data))
        size, _ = equal_batches(count, self.numerics.batch)
        chosen = torch.randperm(len(self._data), generator=torch.Generator().manual_seed(0))[: count // size * size]
        self.module.eval()
        recalibrate(self.module, (self._prepared(self._data.tensor[part]) for part in chosen.split(size)))

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on: plain values and tensors (see :meth:`restore`)."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "order": self._order,
            "losses": float(self._losses),
            "loss": self.loss,
            "random": self._random.state(),
            "facts": self.facts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from there, to the same bits."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self._order = state["done"], state["order"]
        self._losses, self.loss, self.facts = state["losses"], state["loss"], state["facts"]
        self._random.restore(state["random"])
        self.scheduled, self._drawn = self.rate, -1

    def _batch(self) -> tuple[Tensor, Tensor, float]:
        """Inputs, targets and what cross-entropy shall smooth them by; a new order at the start of an epoch."""
        place = self.done % self.steps
        if place == 0:
            self._order = torch.randperm(len(self._data))
        if place == 0 or self._drawn != self.done:  # another epoch, a run that goes on, or a batch once more
            rest = self._order[place * self._size : self.steps * self._size]
            self._epoch = self._samples.batches(rest, self._size, self.settings, self.done)
        stored, labels = next(self._epoch)
        self._drawn = self.done + 1
        inputs = self._prepared(stored)
        inputs = self._erase(inputs) if self._erase else inputs
        if self._mix:
            return *self._mix(inputs, labels), 0.0  # timm's targets are smooth already
        return inputs, labels, self.settings.label_smoothing

    def _prepared(self, stored: Tensor) -> Tensor:
        return batch_for(self.task, stored, self._device)


def accuracy(module: nn.Module, task: Task, split: Split, numerics: Numerics) -> float:
    """Top-1 accuracy on a split; leaves the module on its device, in evaluation mode."""
    on_device(module, numerics.device, numerics.layout).eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(split), numerics.batch):
            part = slice(start, start + numerics.batch)
            output = module(batch_for(task, split.tensor[part], numerics.device))
            try:
                check_logits(output)
            except TypeError as error:
                raise TaskError(f"task '{task.name}': {error}") from None
            logits = split.project(output)
            right += int((answered(logits).cpu() == split.labels[part]).sum())
    return right / len(split)


def batch_size(task: Task, settings: HyperParameters) -> int:
    """Samples of a step: what was asked for, or all there are; an even number of them, as timm's mixup pairs them."""
    count = len(task.training)
    return max(1, min(settings.batch_size, count - count % 2))


def steps_of(task: Task, settings: HyperParameters) -> int:
    """Counts the steps that a run makes."""
    return settings.epochs * (len(task.training) // batch_size(task, settings))


def _classes(module: nn.Module, task: Task, numerics: Numerics) -> int:
    on_device(module, numerics.device, numerics.layout).eval()
    with torch.inference_mode():
        logits = task.held_out.project(module(batch_for(task, task.held_out.tensor[:2], numerics.device)))
    return int(logits.shape[1])

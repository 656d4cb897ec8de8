"""How a forward pass is made: over which batches, from which stage on, in which order, compiled or not."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from blake3 import blake3
from torch import Tensor

from merging.errors import Stopped, StopReason, TaskError
from merging.forward.device import batch_for, on_device
from merging.forward.feed import Feed
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.stages import Activations, Stage, compact, shares_of, stages_of
from merging.plugins.task import HELD_OUT, UNLABELLED, Task

Contents: TypeAlias = Callable[[str], Any]
"""A tensor's name → what decides its values, JSON-ready."""
_CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a compiled model's logits may be from the eager ones, relative to the largest."""


class Passes:
    """Forward passes of the live model over a task's splits.

    Args:
        live: the model whose weights are mixed in place.
        task: the data.
        numerics: batch, and whether the model is compiled.
        cache_memory: bytes for activations of earlier passes; 0: every pass is whole.
        should_stop: asked between batches; True ends the pass at once.
        counts: integer labels are numbers to be met, and no outputs of the model.

    Attributes:
        share: what the last pass cost, as a share of a whole one; by operations where it began late.
        activations: of earlier passes.
        compiled: the compiled model, from the first pass on that runs one.
    """

    def __init__(
        self,
        live: LiveModel,
        task: Task,
        numerics: Numerics,
        cache_memory: int,
        should_stop: Callable[[], bool],
        *,
        counts: bool = False,
    ) -> None:
        self.live, self.task, self.numerics = live, task, numerics
        self.share = 1.0
        self._should_stop, self._counts = should_stop, counts
        self._classes: int | None = None
        self.activations = Activations(0 if numerics.compiled else cache_memory)
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self._stages: tuple[Stage, ...] = ()
        self._shares: tuple[float, ...] = ()
        self._last: list[str] = []  # what decided the stages' inputs in the pass before
        self._feeds: dict[str, Feed] = {}
        self._independent: bool | None = None
        self._eager = False

    @contextlib.contextmanager
    def eagerly(self) -> Iterator[None]:
        """Runs the module as it is for a while, compiled or not."""
        before, self._eager = self._eager, True
        try:
            yield
        finally:
            self._eager = before

    def feed(self, split: str) -> Feed:
        """A split's samples; on the device from the first use on, where they fit."""
        if split not in self._feeds:
            self._feeds[split] = Feed(self.task.split(split), self.live.weights.device)
            self.check_labels(split)
        return self._feeds[split]

    def prepare(self, inputs: Tensor) -> Tensor:
        """What the model takes: normalised, in the precision that it runs in."""
        return batch_for(self.task, inputs, self.live.weights.device, self.live.dtype)

    def batches(
        self, split: str, order: Tensor | None = None, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Model inputs and labels, ``size`` samples at a time (None: as many as passes take)."""
        for inputs, labels in self.feed(split).batches(size or self.numerics.batch, order):
            yield self.prepare(inputs), labels

    def plain(self, split: str, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of whole passes, batch by batch."""
        self.share = 1.0
        for x, labels in self.batches(split, order):
            self._check_stop()
            with torch.inference_mode():
                logits = self._run(x)
            yield logits, labels

    def forward(self, split: str, content: Contents | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels, batch by batch in the split's order.

        A held-out pass begins at the last stage whose input is kept from a pass with the same early weights, and
        keeps the inputs that the next one is likely to need.

        Args:
            split: its name.
            content: what decides the weights that are in the model now; None: a whole pass.
        """
        feed = self.feed(split)
        staged = content is not None and split == HELD_OUT and self.activations.limit > 0
        prefixes = self._prefixes(content, feed) if staged and content is not None else [""]
        if len(prefixes) == 1:
            yield from self.plain(split)
            return
        first, size = self.activations.deepest(prefixes), self.numerics.batch
        self.share = sum(self._shares[first:])
        kept: dict[int, list[Tensor]] = {stage: [] for stage in self._worth_keeping(prefixes, first)}
        starts = range(0, len(feed), size)
        fresh = None if first else self.batches(split)
        for number, start in enumerate(starts):
            self._check_stop()
            with torch.inference_mode():
                x = self.activations.batches(first)[number] if fresh is None else next(fresh)[0]
                for k in range(first, len(prefixes)):
                    if k in kept:
                        part = compact(x)
                        if number or self.activations.make_room(k, part.nbytes * len(starts), first):
                            kept[k].append(part)
                        else:
                            del kept[k]
                    x = self._stages[k].run(x)
            yield x, feed.labels[start : start + size]
        for stage, parts in kept.items():
            self.activations.keep(stage, prefixes[stage], parts)
        self._last = prefixes

    def hardest_first(self, split: str, margins: Tensor) -> Tensor | None:
        """An order that visits samples by an earlier pass's margin, smallest first, and changes no sample's logits.

        The samples of a last, smaller batch stay together at the end: another batch size may give other bits.

        Args:
            split: its name.
            margins: shape ``(N,)``.

        Returns:
            Indices of shape ``(N,)``, or None where a sample's logits depend on its neighbours in the batch.
        """
        feed, size = self.feed(split), self.numerics.batch
        whole = len(feed) - len(feed) % size
        if self._independent is None:
            shuffled = on_device(torch.roll(torch.arange(min(size, len(feed))).flip(0), 1), feed.labels.device)
            with torch.inference_mode():
                logits = self._run(self.prepare(feed.take(slice(0, len(shuffled)))))
                self._independent = torch.equal(logits[shuffled], self._run(self.prepare(feed.take(shuffled))))
        if not self._independent:
            return None
        order = torch.argsort(margins[:whole], stable=True)
        return torch.cat([order, torch.arange(whole, len(feed), device=order.device)])

    def _run(self, x: Tensor) -> Tensor:
        if not self.numerics.compiled or self._eager:
            logits: Tensor = self.live.module(x)
            return logits
        if self.compiled is None:
            self.compiled = self._compile(x)
        return self.compiled(x)

    def _compile(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The compiled model, its logits compared with the eager ones'.

        Raises:
            TaskError: it cannot be compiled here, or computes something else.
        """
        mode = "reduce-overhead" if x.is_cuda else None  # CUDA graphs
        compiled: Callable[[Tensor], Tensor] = torch.compile(self.live.module, mode=mode, dynamic=False)
        eager = self.live.module(x).float()
        try:
            with warnings.catch_warnings():  # of TF32, which fp32 here does without, and of its own empty first graph
                warnings.simplefilter("ignore", UserWarning)
                found = compiled(x).float()
        except Exception as error:  # compilers raise whatever is missing on this machine
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TaskError(f"the model cannot be compiled here ({reason}); leave out --compile") from None
        apart, largest = float((found - eager).abs().max()), float(eager.abs().max())
        if not apart <= _CLOSE[self.numerics.dtype] * max(largest, 1e-6):
            raise TaskError(
                f"compiled, the model's logits are {apart:.3g} away from the eager ones; leave out --compile"
            )
        return compiled

    def _check_stop(self) -> None:
        if self._should_stop():
            raise Stopped(StopReason.INTERRUPTED)

    def _prefixes(self, content: Contents, feed: Feed) -> list[str]:
        """For each stage, a digest of all that decides its input: the tensors that earlier stages read."""
        if not self._stages:
            with torch.inference_mode():
                sample = self.prepare(feed.take(slice(0, 2)))
            self._stages = stages_of(self.live.module, sample)
            self._shares = shares_of(self._stages, sample)
            self._reads = [sorted(stage.tensors & self.live.columns.keys()) for stage in self._stages]
        digest, prefixes = blake3(), list[str]()
        for names in self._reads:
            prefixes.append(digest.hexdigest())
            digest.update(json.dumps([[name, content(name)] for name in names]).encode())
        return prefixes

    def _worth_keeping(self, prefixes: list[str], first: int) -> set[int]:
        """Stages whose inputs the next pass may begin with.

        The head's, always: it costs next to nothing. And that of the stage where this pass began to differ from the
        one before: a search that moves one place moves it again.
        """
        entries = [k for k, stage in enumerate(self._stages[: len(prefixes)]) if stage.entry]
        if not entries:
            return set()
        same = sum(a == b for a, b in zip(prefixes, self._last, strict=False))  # the first stage's is always
        place = max((k for k in entries if k < same), default=0) if self._last else 0
        return {k for k in (entries[-1], place) if k > first}

    def check_labels(self, split: str) -> None:
        """Refuses labels that are none of the model's outputs; a split need not be on the device for that.

        Raises:
            TaskError: there are such labels.
        """
        whole = self.task.split(split)
        if split == UNLABELLED or self._counts or not whole.categorical:
            return
        feed = next(iter(self._feeds.values())) if self._feeds else Feed(whole, self.live.weights.device)
        if self._classes is None:
            with torch.inference_mode():
                self._classes = self.live.module(self.prepare(feed.take(slice(0, 1)))).shape[-1]
        classes, low, high = self._classes, int(whole.labels.min()), int(whole.labels.max())
        if classes == 1 and high > 0:
            raise TaskError(
                f"split '{split}' has labels from {low} to {high}, and the model gives one number: where labels are "
                "numbers, take an objective for them, such as --objective mse"
            )
        if low < 0 or high >= classes:
            raise TaskError(
                f"split '{split}' has labels from {low} to {high}, but the model has {classes} classes "
                f"(0 to {classes - 1}); check the labels' order and the head"
            )

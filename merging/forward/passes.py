"""How a forward pass is made: over which batches, from which stage on, in which order, compiled or not."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from merging.errors import Stopped, StopReason, TaskError
from merging.forward.carried import Carried, compact, copied, leaves
from merging.forward.compiling import Compiled, compiled, repeated_blocks
from merging.forward.device import batch_for, on_device
from merging.forward.feed import Feed, feed_of
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.patches import pixels_of, takes_pixels, use_products
from merging.forward.stages import Activations
from merging.forward.staging import Contents, Span, Staging
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, UNLABELLED, Task

_ALIGNED = 128
"""Bytes at whose multiples samples begin that are sent without those before them."""


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
        activations: inputs of stages, kept from earlier passes.
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
        self._whole = whole = numerics.compiled and not repeated_blocks(live.module)  # such a one has no stages
        self.activations = Activations(0 if whole else cache_memory)
        self.compiled: Compiled | None = None
        self._staging: Staging | None = None
        self._feeds: dict[str, Feed] = {}
        self._parts: dict[str, tuple[Span, Feed]] = {}
        self._independent: bool | None = None
        self._eager = False
        self._bytes: list[tuple[int, int]] = []
        self._pixels: bool | None = None
        if numerics.patches:
            use_products(live.module)

    @contextlib.contextmanager
    def eagerly(self) -> Iterator[None]:
        """Runs the module as it is for a while, compiled or not."""
        before, self._eager = self._eager, True
        try:
            yield
        finally:
            self._eager = before

    def feed(self, split: str, span: Span | None = None) -> Feed:
        """A split's samples, or some of them in a row; on the device from the first use on, where they fit.

        Where only some have been asked for, the others stay where they are stored.
        """
        if span is not None and split not in self._feeds:
            part = self._part_of(split, span)
            if part is not None:
                return part
        if split not in self._feeds:
            self._parts.pop(split, None)  # makes room
            self._feeds[split] = feed_of(self.task.split(split), self.live.device)
            self.check_labels(split)
        whole = self._feeds[split]
        return whole if span is None else whole.part(*span)

    def _part_of(self, split: str, span: Span) -> Feed | None:
        """Some samples, sent without the others; None where they would lie otherwise in memory than among these.

        Kernels may choose code paths by alignment.
        """
        if split in self._parts and self._parts[split][0] == span:
            return self._parts[split][1]
        whole, (start, stop) = self.task.split(split), span
        if not isinstance(whole.inputs, Sequences) and start * whole.inputs[:1].nbytes % _ALIGNED:
            return None
        self._parts.pop(split, None)
        some = replace(whole, inputs=whole.inputs[start:stop], labels=whole.labels[start:stop])
        self._parts[split] = span, feed_of(some, self.live.device)
        self.check_labels(split)
        return self._parts[split][1]

    def _first(self, split: str, count: int) -> Tensor | Sequences:
        """A split's first samples as they are stored, on the device; that needs none of the others there."""
        if split in self._feeds:
            return self._feeds[split].take(slice(0, count))
        inputs = self.task.split(split).inputs[:count]
        return inputs if isinstance(inputs, Sequences) else on_device(inputs, self.live.device)

    def prepare(self, inputs: Tensor | Sequences) -> Tensor:
        """Turns stored samples into what the model takes: normalised, in the precision that it runs in."""
        return batch_for(self.task, inputs, self.live.device, self.live.dtype)

    def _entering(self, stored: Tensor | Sequences) -> Tensor:
        """What a pass puts into the model: prepared samples, or images as stored where its first layer takes those."""
        if isinstance(stored, Sequences):
            return self.prepare(stored)
        if self._pixels is None:
            self._pixels = self.numerics.patches and takes_pixels(self.live.module, stored[:2], self.task.prepare)
        raw = pixels_of(stored) if self._pixels else None
        return self.prepare(stored) if raw is None else raw

    def batches(
        self, split: str, order: Tensor | None = None, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Model inputs and labels, ``size`` samples at a time (None: as many as passes take)."""
        by_samples = size is not None
        for inputs, labels in self.feed(split).batches(size or self.numerics.batch, order, samples=by_samples):
            yield self.prepare(inputs), labels

    def plain(
        self, split: str, order: Tensor | None = None, span: Span | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of passes through the whole model, batch by batch: over a split, or a span of it."""
        self.share = 1.0
        for stored, labels in self.feed(split, span).batches(self.numerics.batch, order, samples=False):
            self._check_stop()
            with torch.inference_mode():
                logits = self._run(self._entering(stored))
            yield logits, labels

    def forward(
        self, split: str, content: Contents | None = None, span: Span | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels, batch by batch in the split's order.

        A held-out pass begins at the last stage whose input is kept from a pass with the same early weights, and
        keeps the inputs that the next one is likely to need.

        Args:
            split: its name.
            content: what decides the weights that are in the model now; None: a pass through all stages.
            span: the samples, which begin where a batch does; None: all of them. What is kept of some samples is for
                passes over the same ones, and ``share`` counts these.
        """
        feed, staging = self.feed(split, span), self._staging_of(split, content)
        if content is None or staging is None:
            yield from self.plain(split, span=span)
            return
        prefixes = staging.prefixes(content, span)
        first, size = self.activations.deepest(prefixes), self.numerics.batch
        self.share = sum(staging.shares[first:])
        kept: dict[int, list[Carried]] = {stage: [] for stage in staging.worth_keeping(prefixes, first)}
        ready = self.activations.batches(first) if first else None
        begin, made = (first, None) if ready is not None else (0, list[Carried]())
        borders, whole = feed.cuts(size), dict[int, int]()
        fresh = feed.batches(size, samples=False) if ready is None else None
        for number, (start, stop) in enumerate(itertools.pairwise(borders)):
            self._check_stop()
            with torch.inference_mode(), contextlib.ExitStack() as stack:
                x: Carried = self._entering(next(fresh)[0]) if fresh is not None else (ready or [])[number]
                if self.numerics.compiled and not self._eager:  # the first pass of all is whole: x are model inputs
                    stack.enter_context(self._compiled_on(leaves(x)[0]).applied())
                for k in range(begin, len(prefixes)):
                    if k == first and first and made is not None:
                        made.append(compact(x))
                    if k in kept:
                        part = compact(x)
                        whole.setdefault(k, feed.bytes_of_all(part, size))
                        if number or self.activations.make_room(k, feed.room_for(part, size), first):
                            kept[k].append(part)
                        else:
                            del kept[k]
                    x = staging.stages[k].run(x)
            yield leaves(x)[0], feed.labels[start:stop]
        if first and made is not None:
            self.activations.make(first, made)
        for stage, parts in kept.items():
            self.activations.keep(stage, prefixes[stage], parts, whole[stage])
        staging.made(prefixes)

    def skip(self, split: str, content: Contents | None = None) -> None:
        """Does all that :meth:`forward` does but the pass, whose outcome is known: its share, and what it would keep.

        Args:
            split: its name.
            content: what decides the weights; a model must have been loaded before the first pass that may begin late.
        """
        staging = self._staging_of(split, content)
        self.share = 1.0
        if content is None or staging is None:
            return
        prefixes, feed = staging.prefixes(content), self.feed(split)
        first = self.activations.deepest(prefixes)
        self.share = sum(staging.shares[first:])
        for stage in sorted(worth := staging.worth_keeping(prefixes, first)):
            room, _ = self._bytes_before(stage, staging, feed)
            if not self.activations.make_room(stage, room, first):
                worth.remove(stage)
        for stage in worth:
            _, whole = self._bytes_before(stage, staging, feed)
            self.activations.pretend(stage, prefixes[stage], whole)
        staging.made(prefixes)

    def costs(self, components: Sequence[Collection[str]], load: Callable[[], object]) -> tuple[float, ...]:
        """Share of a whole held-out pass that is left where only one component's tensors have changed.

        Args:
            components: names of each one's tensors.
            load: puts some model's weights in place, on which it is tried where a pass may begin.
        """
        if self._whole:
            return (1.0,) * len(components)
        if self._staging is None:
            load()
        return tuple(self._staged().share_from(names) for names in components)

    def cuts_nothing_yet(self, split: str) -> bool:
        """Whether passes over a split may go on from inputs that earlier ones have kept, and it is not known where."""
        return self._staging is None and split == HELD_OUT and bool(self.activations.limit)

    def _bytes_before(self, stage: int, staging: Staging, feed: Feed) -> tuple[int, int]:
        """Room for a stage's inputs, and their bytes, whatever the weights are; found once, by running a batch."""
        if not self._bytes:
            size = self.numerics.batch
            with torch.inference_mode():
                first = slice(0, feed.cuts(size)[1])
                x: Carried = self._entering(feed.take(first))
                for each in staging.stages:
                    self._bytes.append((feed.room_for(x, size), feed.bytes_of_all(x, size)))
                    x = each.run(copied(x))
        return self._bytes[stage]

    def _staging_of(self, split: str, content: Contents | None) -> Staging | None:
        """The stages, where a pass with such weights may begin late; None where it is whole anyway."""
        if content is None or split != HELD_OUT or not self.activations.limit:
            return None
        staging = self._staged()
        return staging if len(staging.stages) > 1 else None

    def _staged(self) -> Staging:
        """The stages, tried on the split's first samples, whichever pass is the first."""
        if self._staging is None:
            with torch.inference_mode():
                sample = self._entering(self._first(HELD_OUT, 2))
            self._staging = Staging(self.live.module, sample, self.live.columns)
        return self._staging

    def hardest_first(self, split: str, easiness: Tensor) -> Tensor | None:
        """An order that visits hard samples first, and changes no sample's logits.

        The samples of a last, smaller batch stay together at the end: another batch size may give other bits.

        Args:
            split: its name.
            easiness: larger for easier samples, shape ``(N,)``.

        Returns:
            Indices of shape ``(N,)``, or None where a sample's logits depend on its neighbours in the batch.
        """
        feed, size = self.feed(split), self.numerics.batch
        whole = len(feed) - len(feed) % size
        if self._independent is None:
            shuffled = on_device(torch.roll(torch.arange(min(size, len(feed))).flip(0), 1), feed.labels.device)
            with torch.inference_mode():
                logits = self._run(self._entering(feed.take(slice(0, len(shuffled)))))
                self._independent = torch.equal(logits[shuffled], self._run(self._entering(feed.take(shuffled))))
        if not self._independent:
            return None
        order = torch.argsort(easiness[:whole], stable=True)
        return torch.cat([order, torch.arange(whole, len(feed), device=order.device)])

    def _run(self, x: Tensor) -> Tensor:
        if self.numerics.compiled and not self._eager:
            return self._compiled_on(x)(x)
        logits: Tensor = self.live.module(x)
        return logits

    def _compiled_on(self, x: Tensor) -> Compiled:
        """The compiled model, made and compared with the eager one on the first batch that runs it."""
        if self.compiled is None:
            self.compiled = compiled(self.live.module, x, self.numerics.dtype)
        return self.compiled

    def _check_stop(self) -> None:
        if self._should_stop():
            raise Stopped(StopReason.INTERRUPTED)

    def check_labels(self, split: str) -> None:
        """Refuses labels that are none of the model's outputs; a split need not be on the device for that.

        Raises:
            TaskError: there are such labels.
        """
        whole = self.task.split(split)
        if split == UNLABELLED or self._counts or not whole.categorical:
            return
        if self._classes is None:
            with torch.inference_mode():
                sample = self._first(next(iter(self._feeds), split), 1)
                self._classes = self.live.module(self.prepare(sample)).shape[-1]
        _refuse_others(split, whole.labels, self._classes)


def _refuse_others(split: str, labels: Tensor, classes: int) -> None:
    """Refuses labels that are none of so many classes.

    Raises:
        TaskError: there are such labels.
    """
    low, high = int(labels.min()), int(labels.max())
    if classes == 1 and high > 0:
        raise TaskError(
            f"split '{split}' has labels from {low} to {high}, and the model gives one number: where labels are "
            "numbers, take an objective for them, such as `objective=mse`"
        )
    if low < 0 or high >= classes:
        raise TaskError(
            f"split '{split}' has labels from {low} to {high}, but the model has {classes} classes "
            f"(0 to {classes - 1}); check the labels' order and the head"
        )

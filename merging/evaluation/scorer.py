"""What says what a model is worth: a protocol, and the one that runs the model in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.evaluation.answers import Answers, finite
from merging.evaluation.bar import Bar
from merging.evaluation.keys import Keys, Trial
from merging.evaluation.parts import Part, check_cut
from merging.evaluation.threshold import above
from merging.forward.passes import Passes
from merging.forward.staging import Contents, Span
from merging.plugins.sequences import Sequences
from merging.plugins.task import CERTIFY, HELD_OUT
from merging.plugins.whole_model_objective import WholeModelObjective, measured
from merging.storage.raw import in_dtype
from merging.values.outcome import Decision, Outcome
from merging.values.recipe import Recipe, Weights


@dataclass(frozen=True, eq=False)
class Wanted:
    """A score, or the logits of a whole split, that will be asked for."""

    model: Recipe | Weights | Trial
    split: str
    record: bool = False
    logits: bool = False


class Scorer(Protocol):
    """Makes forward passes, here or elsewhere: what is asked and what is answered are values.

    It counts nothing and remembers no outcome; that is the ledger's part. Where ``record`` is said, a pass is one of
    record: in fp32, never compiled, whole, with the terms kept.
    """

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses sets with labels that are none of the model's outputs.

        Raises:
            TaskError: a set has such labels.
        """

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        """The outcome of a model on a split, with its cost in seconds and passes."""

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        """Logits of a whole split for its classes, float32 on the CPU, shape ``(N, classes)``; passes that it took."""

    def of_logits(self, logits: Tensor, split: str, *, record: bool = False) -> Outcome:
        """Makes the outcome that logits of a whole split mean, shape ``(N, classes)``; no model runs.

        Raises:
            StrategyError: the objective looks at the model itself.
        """

    def costs(self) -> tuple[float, ...]:
        """Share of a whole held-out pass that a change of each component alone costs."""

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        """Whether the held-out score clears a bar, and the seconds that this took.

        Args:
            model: the model.
            bar: what must be cleared.
            easiness: larger for samples that are to be visited later, shape ``(N,)``; None: nothing is known of them.
            checked: an earlier test of the run has paid for finding out whether samples may be visited in any order.
        """

    def measured(self, merged: Recipe | Weights) -> tuple[dict[str, Tensor], float]:
        """An average's BatchNorm statistics, measured on data, in the checkpoints' dtypes; passes that it took."""

    @property
    def foresees(self) -> bool:
        """Whether it makes anything beforehand."""

    def foresee(self, wanted: Iterable[Wanted], *, first: bool = False) -> None:
        """Is told what will be asked next, in that order; it may make it beforehand, or leave it.

        Args:
            wanted: scores that take the place of what it was told before.
            first: before what it was told before, instead.
        """


class LiveScorer:
    """The scorer that runs the live model in this process.

    Args:
        keys: say how a model depends on its tensors, and with which objective and data it is scored.
        passes: forward passes over the live model.

    Attributes:
        live: the model whose weights are mixed in place.
    """

    def __init__(self, keys: Keys, passes: Passes) -> None:
        self.live, self.passes = passes.live, passes
        self._keys, self._task, self._objective = keys, keys.task, keys.objective

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses sets with labels that are none of the model's outputs."""
        self.passes.feed(HELD_OUT)
        for name in names:
            self.passes.check_labels(name)

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        """A forward pass; in fp32 where it certifies, whatever precision the search runs in."""
        with self._precision(split, record=record):
            began = time.perf_counter()
            contents = None if record else self._keys.tensors(model)
            extra = self._load(model)
            if isinstance(self._objective, WholeModelObjective):
                score = finite(measured(self._objective, self.live.module, _View(self.passes, split)))
                outcome = Outcome(score=score, samples=len(self._task.split(split)), correct=None)
            else:
                answers = self._answers(model, split, contents, record=record)
                outcome = replace(answers.outcome(), passes=self.passes.share)
            return replace(outcome, seconds=time.perf_counter() - began, passes=outcome.passes + extra)

    def part(self, model: Recipe | Weights | Trial, split: str, start: int, stop: int, *, record: bool = False) -> Part:
        """A part of what :meth:`measure` does: :func:`merging.evaluation.parts.joined` makes the outcome of all parts.

        What a pass keeps for later ones is kept for the same samples: whoever makes the same part of each trial of a
        search saves as much as in whole passes.

        Args:
            model: the model.
            split: name of the split.
            start: the first sample, where a batch begins.
            stop: the sample after the last, where a batch ends.
            record: the parts are of an outcome of record.

        Raises:
            StrategyError: the objective looks at the model itself.
            ValueError: the samples are no whole batches.
        """
        samples = len(self._task.split(split))
        check_cut(start, stop, self._task.split(split).cuts(self.passes.numerics.batch))
        with self._precision(split, record=record):
            began = time.perf_counter()
            contents = None if record else self._keys.tensors(model)
            extra = self._load(model)
            span = None if stop - start == samples else (start, stop)
            seen = self._answers(model, split, contents, span, record=record).seen()
            seconds = time.perf_counter() - began
            return Part.of(seen, start, stop, seconds=seconds, share=self.passes.share, measuring=extra)

    def _answers(
        self,
        model: Recipe | Weights | Trial,
        split: str,
        contents: Contents | None,
        span: Span | None = None,
        *,
        record: bool,
    ) -> Answers:
        """The loaded model's answers to a split, or to some of its samples in a row."""
        says_loss = isinstance(model, Trial) and model.loss
        answers = Answers(self._objective, self._task, split, record=record, loss=says_loss)
        project = self._task.split(split).project
        for outputs, labels in self.passes.forward(split, contents, span):
            answers.add(project(outputs), labels)
        return answers

    def skipped(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> float:
        """Passes that :meth:`measure` would take; what a pass keeps for later ones is kept as if it had been made."""
        loaded = model.incumbent if isinstance(model, Trial) else model
        self.live.load_integers(loaded)  # they stay for whoever mixes weights of his own next
        calibration = self._keys.calibration
        extra = 0.0
        if calibration is not None and calibration.statistics:
            extra = calibration.share if isinstance(model, Trial) or self._keys.averages(model) else 0.0
        if isinstance(self._objective, WholeModelObjective):
            return 1.0 + extra
        if not record and self.passes.cuts_nothing_yet(split):
            # Where a pass may begin is tried on a model, not on what is in memory by chance; any one will do.
            ready = isinstance(loaded, Recipe)
            self.live.load(loaded if ready else Recipe.single(self.live.pool.ingredients[0], self._keys.partition))
            self.live.load_integers(loaded)
        self.passes.skip(split, None if record else self._keys.tensors(model))
        return self.passes.share + extra

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        """Logits of a whole split, and passes that it took."""
        with self._precision(split, record=record):
            passes, project = 1.0 + self._load(recipe), self._task.split(split).project
            return torch.cat([project(found).float().cpu() for found, _ in self.passes.plain(split)]), passes

    def of_logits(self, logits: Tensor, split: str, *, record: bool = False) -> Outcome:
        """Makes the outcome that logits of a whole split mean; this runs on the CPU."""
        answers = Answers(self._objective, self._task, split, record=record)
        answers.add(logits, self._task.split(split).labels.cpu())
        return answers.outcome()

    def costs(self) -> tuple[float, ...]:
        """Share of a whole held-out pass that a change of each component alone costs; whole where stages do not help.

        The same whether activations are kept or not, so that a search asks for the same points either way.
        """
        partition = self._keys.partition
        components = [component.tensors for component in partition.components]
        if isinstance(self._objective, WholeModelObjective) or self._keys.statistics:
            return (1.0,) * len(components)
        some = Recipe.single(self.live.pool.ingredients[0], partition)
        return self.passes.costs(components, lambda: self.live.load(some))

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        """Whether the held-out score clears a bar, and the seconds that this took.

        Samples are visited hardest first where that changes no logit (:meth:`Passes.hardest_first`).
        """
        began = time.perf_counter()
        extra, project = self._load(model), self._task.held_out.project
        order, size, n = None, self.passes.numerics.batch, len(self._task.held_out)
        if easiness is not None and size < n and not isinstance(self._task.held_out.inputs, Sequences):
            # a single batch ends nowhere early; sequences stay in the order of their lengths
            order = self.passes.hardest_first(HELD_OUT, torch.from_numpy(easiness))
            extra += 0.0 if checked else 2 * size / n
        made = ((project(outputs), labels) for outputs, labels in self.passes.plain(HELD_OUT, order))
        found = above(bar, Answers(self._objective, self._task, HELD_OUT), order, made)
        seconds = time.perf_counter() - began
        if found.outcome is None:
            return replace(found, passes=found.passes + extra), seconds
        outcome = replace(found.outcome, seconds=seconds, passes=1.0 + extra)
        return replace(found, passes=outcome.passes, outcome=outcome), seconds

    def measured(self, merged: Recipe | Weights) -> tuple[dict[str, Tensor], float]:
        """An average's BatchNorm statistics, and passes that measuring them took."""
        with self.live.in_fp32():
            extra = self._load(merged)
            state = self.live.module.state_dict()
            found = {n: state[n].detach().cpu().clone().contiguous() for n in sorted(self._keys.statistics)}
        stored = self.live.pool.tensors
        return {name: in_dtype(tensor, stored[name][1]) for name, tensor in found.items()}, extra

    foresees = False

    def foresee(self, wanted: Iterable[Wanted], *, first: bool = False) -> None:
        """Makes nothing beforehand: one pass after the other is made, when it is asked for."""

    def _load(self, model: Recipe | Weights | Trial) -> float:
        """Puts a model into the module, its statistics measured where they are averages; passes that this took."""
        if isinstance(model, Trial):
            self.live.set_ends(model.incumbent, model.candidate)
            self.live.trial(model.factors, model.mixing)
        else:
            self.live.load(model)
            if not self._keys.averages(model):
                return 0.0
        calibration = self._keys.calibration
        return calibration.measure() if calibration is not None and calibration.statistics else 0.0

    @contextlib.contextmanager
    def _precision(self, split: str, *, record: bool) -> Iterator[None]:
        with (
            self.live.in_fp32(whole=not record and self.passes.numerics.compiled)
            if record or split == CERTIFY
            else contextlib.nullcontext(),
            self.passes.eagerly() if record else contextlib.nullcontext(),
        ):
            yield


class _View:
    """A split as a whole-model objective sees it."""

    def __init__(self, passes: Passes, split: str) -> None:
        self._passes, self._split = passes, split

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._passes.batches(self._split)

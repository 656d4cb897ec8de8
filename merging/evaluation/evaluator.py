"""The evaluator: the one door through which every forward pass goes. Counted, journalled, cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from merging.errors import Stopped, StopReason
from merging.evaluation.bar import Bar
from merging.evaluation.gradients import Gradients, LiveGradients
from merging.evaluation.keys import Keys, Trial
from merging.evaluation.ledger import Ledger
from merging.evaluation.outputs import Outputs
from merging.evaluation.remembered import Recall, Remembered
from merging.evaluation.scorer import LiveScorer, Scorer, Wanted
from merging.evaluation.threshold import can_stop_early
from merging.forward.calibration import Calibration
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.passes import Passes
from merging.plugins.objective import Objective
from merging.plugins.progress import Progress
from merging.plugins.task import CERTIFY, HELD_OUT, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.storage.content import content_hash
from merging.storage.file_hashes import how_told
from merging.values.outcome import Decision, Outcome
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

CACHE_MEMORY = 1 << 30
"""Bytes for activations of earlier passes, where nothing else is said."""


class _Asked(Stopped):
    """Ends a function that is listened to; whoever runs somebody's code lets it pass."""

    def __init__(self, wanted: list[Wanted]) -> None:
        super().__init__(StopReason.INTERRUPTED)
        self.wanted = wanted


class Evaluator:
    """Scores recipes and trials on a task's splits: by what the ledger knows, else by asking the scorer.

    Args:
        keys: keys of the evaluations, with data, objective and numerics.
        ledger: memory, journal, meters and limits.
        scorer: makes forward passes.
        gradients: takes gradients through merged models.
        progress: told how far the members of an ensemble are.
        remembered: outcomes that other commands have kept; None: they are nothing to this one.

    Attributes:
        outputs: logits of whole splits.
    """

    def __init__(
        self,
        keys: Keys,
        ledger: Ledger,
        scorer: Scorer,
        gradients: Gradients,
        progress: Progress | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        self.keys, self.ledger, self.scorer, self.gradients = keys, ledger, scorer, gradients
        self.remembered, self.progress = remembered, progress
        self.outputs = Outputs(keys, ledger, scorer, progress)
        self.task, self.objective, self.numerics = keys.task, keys.objective, keys.numerics

    @classmethod
    def over(
        cls,
        live: LiveModel,
        task: Task,
        objective: Objective | WholeModelObjective,
        numerics: Numerics,
        ledger: Ledger,
        *,
        cache_memory: int = CACHE_MEMORY,
        measure_again: bool = False,
        progress: Progress | None = None,
    ) -> Evaluator:
        """The evaluator that runs a live model in this process.

        Args:
            live: the model whose weights are mixed in place.
            task: the data.
            objective: what is maximised.
            numerics: batch, threads and precision; part of every key.
            ledger: memory, journal, meters and limits.
            cache_memory: bytes for activations of earlier passes, from which a pass goes on whose early weights are the
                same; 0: every pass is whole. The bits are the same either way.
            measure_again: BatchNorm statistics of averages are measured on training data before they are scored.
            progress: told how far the members of an ensemble are.
        """
        memory = cache_memory if ledger.exact_savings else 0
        counts = isinstance(objective, Objective) and objective.takes == "numbers"
        passes = Passes(live, task, numerics, memory, ledger.interrupted, counts=counts)
        calibration = Calibration(live, task, numerics, passes) if measure_again else None
        keys = Keys(live.partition, task, objective, numerics, integers=live.has_integers, calibration=calibration)
        scorer = LiveScorer(keys, passes)
        # What measures what is saved makes every pass.
        remembered = Remembered(keys, scorer) if how_told().applies and ledger.exact_savings else None
        return cls(keys, ledger, scorer, LiveGradients(keys, passes, ledger), progress, remembered)

    def evaluate(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of a merged model on a split.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
        """
        key = self.keys.evaluation(merged, split)
        if isinstance(merged, Ensemble):
            return self.ledger.through(key, split, lambda: self.outputs.ensemble(merged, split))
        self._overheard(key, merged, split)
        memory = self._memory(merged, split, key)
        return self.ledger.through(key, split, lambda: self.scorer.measure(merged, split), memory=memory)

    def _memory(self, merged: Merge, split: str, key: str, *, record: bool = False) -> Recall | None:
        """What other commands know of an evaluation that this session has not asked for before."""
        if self.remembered is None or self.ledger.known(key) is not None:
            return None
        return self.remembered.of(merged, split, record=record)

    def has(self, merged: Merge, split: str = HELD_OUT, *, record: bool = False) -> bool:
        """Whether this session has asked for a score already."""
        key = self.keys.evaluation(merged, split, record=record and not self.of_record(split))
        return self.ledger.known(key) is not None

    def record(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of record, which tables and verdicts are made of: in fp32, never compiled, with the terms kept.

        Journalled and cached, but no evaluation of a search: it counts towards no budget, and nothing is chosen by it
        but among merges that are ready. Where a search has seen the same it is not made again.

        Args:
            merged: the model.
            split: the set.

        Raises:
            Stopped: the run was interrupted.
        """
        if self.of_record(split):
            if split != HELD_OUT:
                return self.evaluate(merged, split)
            known = self.ledger.known(self.keys.evaluation(merged, split))
            if known is not None:
                return known
        key = self.keys.evaluation(merged, split, record=True)
        if isinstance(merged, Ensemble):
            return self.ledger.record(key, split, lambda: self.outputs.recorded(merged, split))
        memory = self._memory(merged, split, key, record=True)
        return self.ledger.record(key, split, lambda: self.scorer.measure(merged, split, record=True), memory)

    def foresee(self, wanted: Iterable[tuple[Merge, str]], *, record: bool = False, first: bool = False) -> None:
        """Says which scores are asked for next, all of them, for a scorer that can make them beforehand.

        Args:
            wanted: models and sets, in order.
            record: outcomes of record are asked for, by :meth:`record`.
            first: before what was foreseen so far, not in its place.
        """
        if not self.ledger.journal.replaying:  # what the journal holds is not made again
            self.scorer.foresee(self._unknown(wanted, record=record), first=first)

    def _unknown(self, wanted: Iterable[tuple[Merge, str]], *, record: bool) -> Iterator[Wanted]:
        """What of it is to be made: of ensembles their members' outputs."""
        for merged, split in wanted:
            exact = record and not self.of_record(split)
            if self.has(merged, split, record=record) or self._remembers(merged, split, record=exact):
                continue
            if isinstance(merged, Ensemble):
                yield from (Wanted(member, split, record=exact, logits=True) for member in merged.members)
            else:
                yield Wanted(merged, split, record=exact)

    def _remembers(self, merged: Merge, split: str, *, record: bool) -> bool:
        return self.remembered is not None and self.remembered.knows(merged, split, record=record)

    def of_record(self, split: str = HELD_OUT) -> bool:
        """Whether :meth:`evaluate` gives the outcome of record itself."""
        exact = self.exact or (split == CERTIFY and not self.numerics.compiled)
        return exact and (isinstance(self.objective, WholeModelObjective) or self.objective.counts_hits)

    @property
    def exact(self) -> bool:
        """Whether the passes of a search are made as those of record are: in fp32, and not compiled."""
        return self.numerics.exact

    def asked_by(self, ask: Callable[[], object]) -> list[Wanted]:
        """Finds what a function asks first, unless this session has asked for it before; the function ends there.

        Args:
            ask: calls :meth:`evaluate`, or what :meth:`between` gave; must bear being called again.
        """
        before, self.ledger.listened = self.ledger.listened, True
        try:
            ask()
        except _Asked as asked:
            return asked.wanted
        except Exception:  # somebody's function: what is wrong with it shows where it is called in earnest
            return []
        finally:
            self.ledger.listened = before
        return []

    def _overheard(self, key: str, model: Recipe | Weights | Trial, split: str = HELD_OUT) -> None:
        """Ends a function that is only listened to, at the first thing that it asks."""
        if self.ledger.listened:
            raise _Asked([] if self.ledger.known(key) is not None else [Wanted(model, split)])

    def between(
        self, incumbent: Recipe, candidate: Recipe, mixing: str, *, loss: bool = False
    ) -> Callable[[NDArray[np.float64]], Outcome]:
        """The function λ ↦ outcome of the trial mix; cached by the *active* factors, so inert moves cost nothing.

        Args:
            incumbent: what λ multiplies.
            candidate: what 1 − λ multiplies.
            mixing: ``lerp`` or ``sum``.
            loss: whether outcomes are to say the loss of their logits.
        """
        ends = self.keys.ends(incumbent, candidate, mixing)

        def look(factors: NDArray[np.float64]) -> Outcome:
            trial = Trial(
                incumbent=incumbent, candidate=candidate, mixing=mixing, factors=factors, ends=ends, loss=loss
            )
            key = self.keys.trial(trial)
            self._overheard(key, trial)
            return self.ledger.through(key, HELD_OUT, lambda: self.scorer.measure(trial, HELD_OUT))

        return look

    def exceeds(self, merged: Merge, bar: Bar) -> Decision:
        """Whether the held-out score clears a bar: what the whole outcome would say, to the last bit.

        Stops once the samples that are left cannot change the answer; where all were seen it is an evaluation like
        others. For ensembles, and objectives that are no mean of terms with bounds, it always is.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
        """
        key = self.keys.evaluation(merged)
        if isinstance(merged, Ensemble) or not can_stop_early(self.objective) or self.ledger.known(key) is not None:
            return bar.of(self.evaluate(merged))

        def make() -> tuple[Decision, float]:
            decision, seconds = self.scorer.exceeds(
                merged, bar, self.ledger.hardness.easiness(), checked=self.ledger.tests > 0
            )
            memory = self._memory(merged, HELD_OUT, key) if decision.outcome is not None else None
            if memory is not None and decision.outcome is not None:
                memory.keep(decision.outcome)
            return decision, seconds

        return self.ledger.test(key, bar, make)

    def recalibrated(self, merged: Merge) -> Merge:
        """The same merge with its BatchNorm statistics measured, as overrides; itself where there is nothing to do."""
        if isinstance(merged, Ensemble):
            members = tuple(self.recalibrated(member) for member in merged.members)
            return Ensemble(members, merged.weights, merged.average)  # type: ignore[arg-type]
        if not self.keys.averages(merged):
            return merged
        found, passes = self.scorer.measured(merged)
        self.ledger.pay(passes)
        if isinstance(merged, Recipe):
            return replace(merged, overrides={**merged.overrides, **found})
        tensors = {**merged.tensors, **found}
        return replace(merged, tensors=tensors, hash=content_hash(tensors), measured=frozenset(found))

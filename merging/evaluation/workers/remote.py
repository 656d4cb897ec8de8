"""The scorer that asks workers: the same values as the one in this process, whoever makes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import WorkersError
from merging.evaluation.bar import Bar
from merging.evaluation.keys import Keys, Trial
from merging.evaluation.scorer import LiveScorer, Wanted
from merging.evaluation.workers.ahead import LOGITS, Ahead, Known, Look
from merging.evaluation.workers.crew import Crew, Job, KilledError
from merging.evaluation.workers.requests import Kind, Made, Mix, Piece
from merging.evaluation.workers.sharing import Sharing
from merging.plugins.task import HELD_OUT
from merging.values.outcome import WORST, Decision, Outcome
from merging.values.recipe import Recipe, Weights
from merging.values.wording import plural

IN_A_ROW = 3
"""Evaluations without a result after which a run ends: then it is the task, or the machine."""


@contextlib.contextmanager
def _said(doing: str) -> Iterator[None]:
    """Says what has killed workers, where nothing can take the place of what it gives.

    Raises:
        WorkersError: it has.
    """
    try:
        yield
    except KilledError as error:
        raise WorkersError(f"{doing} ends workers: {error}") from None


class RemoteScorer:
    """A :class:`merging.evaluation.scorer.Scorer` over a crew.

    What a pass costs is what it would have cost in one process, one after the other: workers keep other activations
    than that one would, and nobody's account may depend on them.

    Args:
        home: the scorer of this process, which makes no passes but knows what they cost.
        keys: keys of the evaluations.
        crew: the workers.
        known: the outcome of an evaluation that is known without a pass.
        should_stop: asked while answers are awaited.
    """

    def __init__(
        self,
        home: LiveScorer,
        keys: Keys,
        crew: Crew,
        known: Callable[[str], Outcome | None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.home, self.keys, self.crew, self._should_stop = home, keys, crew, should_stop
        if crew.plans is None:
            crew.plans = Ahead(crew), Sharing(keys, crew)
        self.ahead, self.sharing = crew.plans
        self.ahead.known = known
        self._followed: list[Job] = []
        self._in_a_row = 0
        self._handed: dict[tuple[Kind, str], Any] = {}

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses sets with labels that are none of the model's outputs."""
        self.home.check_labels(names)

    def of_logits(self, logits: Tensor, split: str, *, record: bool = False) -> Outcome:
        """Makes the outcome that logits of a whole split mean."""
        return self.home.of_logits(logits, split, record=record)

    def costs(self) -> tuple[float, ...]:
        """Share of a whole held-out pass that a change of each component alone costs."""
        return self.home.costs()

    @contextlib.contextmanager
    def handed(self, made: Iterable[Made]) -> Iterator[None]:
        """Takes what a worker has made already for what the block asks."""
        for each in made:
            key = "" if each.recipe is None else self.key(each.recipe, each.split)
            self._handed[each.kind, key] = each.found
        try:
            yield
        finally:
            self._handed.clear()

    def measure(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> Outcome:
        """The outcome of a model on a split; of one that kills whoever is asked the worst score, with the reason."""
        passes = self.home.skipped(model, split, record=record)
        key = self.key(model, split, record=record)
        if (handed := self._handed.pop((Kind.MEASURE, ""), None)) is not None:
            self.ahead.take(key, handed)
        try:
            outcome, reached = self._found(key, model, split, record=record)
        except KilledError as error:
            return self._failed(split, error, passes)
        self._in_a_row = 0
        self._narrow(reached)
        self.sharing.saw(outcome, split)
        return replace(outcome, passes=passes)

    def logits(self, recipe: Recipe, split: str, *, record: bool = False) -> tuple[Tensor, float]:
        """Logits of a whole split, and passes that it took."""
        key = self.key(recipe, split, record=record)
        handed = self._handed.pop((Kind.LOGITS, key), None)
        job = self.ahead.taken(LOGITS + key)
        if handed is None:
            if job is None or job.dropped or job.error is not None:
                job = self.crew.job(Kind.LOGITS, (recipe, split, record))
            self.crew.hurry(job)
            with _said(f"finding the outputs of {plural(len(recipe.names), 'model')} on {split}"):
                handed = self.crew.wait(job, self._should_stop)
        found, reached = handed
        self._narrow(reached)
        return found[0], found[1]

    def exceeds(
        self, model: Recipe | Weights, bar: Bar, easiness: NDArray[np.int64] | None, *, checked: bool
    ) -> tuple[Decision, float]:
        """Whether the held-out score clears a bar, and the seconds; what kills whoever is asked has the worst score."""
        handed = self._handed.pop((Kind.TEST, ""), None)
        try:
            found, reached = handed or self._asked(Kind.TEST, (model, bar, easiness, checked))
        except KilledError as error:
            return bar.of(self._failed(HELD_OUT, error, 1.0)), 0.0
        self._narrow(reached)
        return found[0], found[1]

    def measured(self, merged: Recipe | Weights) -> tuple[dict[str, Tensor], float]:
        """An average's BatchNorm statistics, and passes that measuring them took."""
        with _said("measuring the BatchNorm statistics of an average"):
            found, reached = self._asked(Kind.STATISTICS, (merged,))
        self._narrow(reached)
        return found[0], found[1]

    def key(self, model: Recipe | Weights | Trial, split: str, *, record: bool = False) -> str:
        """The key of an evaluation."""
        if isinstance(model, Trial):
            return self.keys.trial(model)
        return self.keys.evaluation(model, split, record=record)

    def look(self, model: Recipe | Weights | Trial, split: str = HELD_OUT, *, record: bool = False) -> Look:
        """An evaluation that will probably be asked for."""
        return Look(key=self.key(model, split, record=record), what=self._words(model, split, record=record))

    @property
    def follows(self) -> bool:
        """Whether a piece is being followed, whose evaluations are all made by one worker."""
        return bool(self._followed)

    @contextlib.contextmanager
    def following(self, key: str, piece: Piece) -> Iterator[None]:
        """Has a piece of a strategy run on one worker while the block runs it here, with what was made there."""
        if self.sharing.pays:
            yield
            return
        job = self.ahead.piece(key, piece)
        self._followed.append(job)
        try:
            yield
        finally:
            self._followed.remove(job)
            if not job.done:
                self.crew.drop([job])

    @property
    def foresees(self) -> bool:
        """Whether several evaluations at once are made sooner than one after the other."""
        return self.crew.count > 1 and not self.follows and not self.sharing.pays

    def foresee(self, wanted: Iterable[Wanted], *, first: bool = False) -> None:
        """Makes beforehand what is asked for next, whole evaluations on as many workers as there are."""
        if self.follows or self._handed:  # all of it is made there, or already
            return
        if first:
            self.ahead.before(map(self._wanted, wanted))
        else:
            self.ahead.announce(map(self._wanted, wanted), 0)  # all of it is asked for, so each of them is whole
        self.crew.pump(0.0)

    def _wanted(self, wanted: Wanted) -> Look:
        look = self.look(wanted.model, wanted.split, record=wanted.record)
        return Look(key=LOGITS + look.key, what=look.what, logits=True) if wanted.logits else look

    def announce(self, looks: Iterable[Look], searches: int = 0) -> None:
        """Says what will probably be asked next, in the place of what was said before."""
        if self.sharing.pays:  # what was announced before keeps nobody from his part
            looks = ()
        self.ahead.announce(looks, searches)
        self.crew.pump(0.0)

    def _words(self, model: Recipe | Weights | Trial, split: str, *, record: bool) -> Any:
        if isinstance(model, Trial):
            said = {name: getattr(model, name) for name in ("incumbent", "candidate", "mixing", "factors", "loss")}
            return Mix(**said), split, record
        return model, split, record

    def _found(self, key: str, model: Recipe | Weights | Trial, split: str, *, record: bool) -> Known:
        """An outcome: made before, on its way, or asked for now."""
        memo = self.ahead.memo
        while key not in memo and self._followed and not self._followed[-1].done:
            with contextlib.suppress(KilledError):  # which of its evaluations it was, each of them will show
                self.crew.wait(self._followed[-1], self._should_stop, until=lambda: key in memo)
        if key not in memo:
            self.ahead.take(key, self._made(key, model, split, record=record))
        return memo[key]

    def _made(self, key: str, model: Recipe | Weights | Trial, split: str, *, record: bool) -> Known:
        """An outcome that is on its way, or asked for now."""
        job = self.ahead.job(key)
        words = self._words(model, split, record=record)
        if job is None and self.sharing.may(model, split):
            return self.sharing.made(words, self._should_stop)
        if job is None:
            job = self.crew.ask(Kind.MEASURE, words)
        else:
            self.crew.hurry(job)
        found: Known = self.crew.wait(job, self._should_stop)
        return found

    def _failed(self, split: str, error: KilledError, passes: float) -> Outcome:
        """The outcome of what has none: the worst score, with the reason.

        Raises:
            WorkersError: nothing has had one for a while: it is not this evaluation that kills.
        """
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise WorkersError(f"{self._in_a_row} evaluations in a row have no result, the last one because {error}")
        self.crew.progress.say(f"warning: an evaluation counts as the worst score, because {error}")
        data = self.keys.task.split(split)
        correct = np.packbits(np.zeros(len(data), dtype=bool)) if data.categorical else None
        return Outcome(score=WORST, samples=len(data), correct=correct, failed=str(error), passes=passes)

    def _asked(self, kind: Kind, words: Any) -> Any:
        return self.crew.wait(self.crew.ask(kind, words), self._should_stop)

    def _narrow(self, reached: frozenset[str] | None) -> None:
        """Takes which statistics a pass reaches, as measuring them in this process would have shown."""
        if reached is not None and self.keys.calibration is not None:
            self.keys.calibration.statistics &= reached

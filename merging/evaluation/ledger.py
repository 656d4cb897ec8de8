"""The ledger: what is known already, what it has cost, and how much there may be."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from merging.errors import Stopped, StopReason
from merging.evaluation.bar import Bar
from merging.evaluation.hardness import Hardness
from merging.plugins.task import HELD_OUT
from merging.plugins.user_code import named, running
from merging.values.outcome import Decision, Meter, Outcome


class Log(Protocol):
    """A keeper of evaluations and decisions beyond the session: a run's journal, a benchmark's memory."""

    @property
    def replaying(self) -> bool:
        """Whether what a run did before is still being gone through."""

    def tested(self, key: str) -> tuple[Decision, float] | None:
        """Looks up the threshold test that is now due, and its seconds; None where it is to be made.

        Of one that saw all samples the outcome counts, and not what it exceeds.
        """

    def replay(self, key: str, split: str) -> Outcome | None:
        """The outcome that is kept for the evaluation now due; None where it is to be made."""

    def peek(self, key: str) -> Outcome | None:
        """The outcome that is kept for an evaluation, whenever it may be due; None where events have an order."""

    def write(self, event: str, **facts: Any) -> None:
        """Keeps an event: its name, and facts that JSON can hold."""


class Observer(Protocol):
    """Watches a search without being part of it; one that raises :class:`Stopped` ends the run."""

    def saw(self, outcome: Outcome, meter: Meter) -> None:
        """A strategy has been told an outcome on the held-out data.

        Args:
            outcome: the outcome of a merge or a trial, measured now or known before.
            meter: what the strategy has needed until then, this outcome included.
        """


class Recalling(Protocol):
    """A memory beyond the session and its journal, asked about one evaluation."""

    def known(self) -> Outcome | None:
        """The outcome that another command has measured; None where it is to be made."""

    def keep(self, outcome: Outcome) -> None:
        """Takes the outcome that was made."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The outcomes and tests that a ledger knows without a pass, by key, and how hard the held-out samples are."""

    known: dict[str, Outcome]
    tested: dict[str, Decision]
    hardness: Hardness
    tests: int


class Ledger:
    """Outcomes by key: each is made once, counted, and kept.

    Args:
        journal: keeps every evaluation, and gives it back on resume.
        limit: distinct held-out evaluations after which the run ends, or None.
        should_stop: asked before each evaluation and between batches; True ends the run at once.
        exact_savings: False makes every evaluation that is asked for, known or not; for measuring what that saves.
        observers: told what a strategy sees.

    Attributes:
        total: what the whole run has cost.
        meter: what the present strategy alone would have cost.
        spent: seconds in held-out passes of this session, those for the record left out.
        hardness: how hard the held-out samples are, by what was measured or known.
        tests: threshold tests that looked at samples, in this session or before.
        failures: why evaluations have no result, which count as the worst score.
        listened: a function is only listened to, and ends at the first thing that it asks: nothing is counted.
    """

    def __init__(
        self,
        journal: Log,
        *,
        limit: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        exact_savings: bool = True,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.journal, self.limit, self.should_stop, self.exact_savings = journal, limit, should_stop, exact_savings
        self.total, self.meter, self.spent = Meter(), Meter(), 0.0
        self._observers = tuple(observers)
        self.hardness, self.tests = Hardness(), 0
        self.failures: list[str] = []
        self.listened = False
        self._asked: set[str] = set()
        self._known: dict[str, Outcome] = {}
        self._tried: set[str] = set()  # tested by the present strategy, short of an outcome
        self._tested: dict[str, Decision] = {}

    def begin(self) -> Meter:
        """A fresh meter for one strategy; it counts what that strategy alone would have cost."""
        self.meter, self._asked, self._tried = Meter(), set(), set()
        return self.meter

    def known(self, key: str) -> Outcome | None:
        """The outcome of an evaluation that this session has asked for before."""
        return self._known.get(key)

    @property
    def knowledge(self) -> Knowledge:
        """The outcomes and tests that are known now."""
        return Knowledge(dict(self._known), dict(self._tested), copy.copy(self.hardness), self.tests)

    def learn(self, knowledge: Knowledge) -> None:
        """Takes what another ledger knows, in the place of what it knew itself."""
        self._known, self._tested = dict(knowledge.known), dict(knowledge.tested)
        self.hardness, self.tests = copy.copy(knowledge.hardness), knowledge.tests

    def through(
        self,
        key: str,
        split: str,
        measure: Callable[[], Outcome],
        *,
        made: float | None = None,
        memory: Recalling | None = None,
    ) -> Outcome:
        """The outcome for a key: from memory, from the journal, or measured now.

        Args:
            key: the text that decides the evaluation (:class:`merging.evaluation.keys.Keys`).
            split: name of its data; only held-out evaluations count.
            measure: makes a forward pass.
            made: seconds of a pass that has been made already, for its logits; the strategy sees these, no outcome.
            memory: knows what other commands have measured; it counts as measured now.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
            PluginError: an observer fails; one line with its name, the error, its file and line.
        """
        self.end_listening()
        counts = split == HELD_OUT
        outcome = self._known.get(key)
        if outcome is not None and not self.exact_savings:
            outcome = measure()
            self.total.forward_equivalents += outcome.passes if counts else 0.0
        if outcome is None:
            outcome = self._enter(key, split, measure, made, memory)
        elif counts:
            self.total.cached += 1
        if counts and key in self._asked:
            self.meter.cached += 1
        elif counts:
            self._asked.add(key)
            _add(self.meter, outcome, again=key in self._tried)
        if counts and made is None:
            for observer in self._observers:
                with running(named("observer", observer), observer):
                    observer.saw(outcome, self.meter)
        return outcome

    def _enter(
        self, key: str, split: str, measure: Callable[[], Outcome], made: float | None, memory: Recalling | None
    ) -> Outcome:
        self._check(key, split)
        outcome, spent = self.journal.replay(key, split), made or 0.0
        if outcome is None:
            outcome, again = _made(measure, memory)
            spent = outcome.seconds if again else spent
        self.journal.write("evaluation", key=key, split=split, **outcome.to_json())
        self._known[key] = outcome
        self.failures += [outcome.failed] if outcome.failed else []
        if split == HELD_OUT:
            self.spent += spent
            _add(self.total, outcome, again=key in self._tested)
            self.hardness.saw(outcome)
        return outcome

    def test(self, key: str, bar: Bar, make: Callable[[], tuple[Decision, float]]) -> Decision:
        """The answer of a threshold test: from an earlier one, from the journal, or found now.

        It counts as the evaluation that it stands for, with the passes that it took; one that saw all samples is that
        evaluation.

        Args:
            key: the text that decides the evaluation.
            bar: what must be cleared.
            make: makes the test; gives its answer and the seconds that it took.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
            PluginError: an observer fails.
        """
        self.end_listening()
        earlier = self._tested.get(key)
        answer = bar.decided(*earlier.within) if earlier is not None else None
        if earlier is not None and answer is not None:
            self.total.cached += 1
            if key in self._tried:
                self.meter.cached += 1
            else:
                self._tried.add(key)
                _count(self.meter, 0.0, earlier.passes)
            return replace(earlier, exceeds=answer, passes=0.0)
        self._check(key, HELD_OUT)
        old, replaying = self.journal.tested(key), self.journal.replaying
        made, seconds = make() if old is None else old
        self.tests += 1
        if old is None and replaying:  # it was written before tests were kept, and is followed as it is
            self.pay(made.passes)
            return made
        spent = self.spent + (seconds if old is None else 0.0)
        if (outcome := made.outcome) is not None:
            found = self.through(key, HELD_OUT, lambda: outcome)
            self.spent = spent  # also where a log knows the outcome by now, the pass was made
            return bar.of(found)
        asked = {"threshold": bar.threshold.hex(), "ties": bar.ties}
        self.journal.write("test", key=key, **asked, **made.to_json(), seconds=seconds)
        self.spent = spent
        _count(self.total, seconds, made.passes, again=key in self._tested)
        _count(self.meter, seconds, made.passes, again=key in self._tried)
        self._tested[key] = made
        self._tried.add(key)
        return made

    def record(self, key: str, split: str, measure: Callable[[], Outcome], memory: Recalling | None = None) -> Outcome:
        """The outcome of record for a key: kept as others are, counted nowhere, seen by no strategy.

        Raises:
            Stopped: the run was interrupted.
        """
        self.end_listening()
        if key not in self._known:
            if self.interrupted():
                raise Stopped(StopReason.INTERRUPTED)
            outcome = self.journal.replay(key, split) or _made(measure, memory)[0]
            self.journal.write("evaluation", key=key, split=split, record=True, **outcome.to_json())
            self._known[key] = outcome
        return self._known[key]

    def _check(self, key: str, split: str) -> None:
        """Ends the run as :meth:`check` does; what a test has counted already is no evaluation more."""
        if key not in self._tested:
            self.check(split)
        elif self.interrupted():
            raise Stopped(StopReason.INTERRUPTED)

    def check(self, split: str = HELD_OUT) -> None:
        """Ends the run where it has been asked to stop, or where its evaluations are used up.

        Raises:
            Stopped: that is so.
        """
        self.end_listening()
        if self.interrupted():
            raise Stopped(StopReason.INTERRUPTED)
        if split == HELD_OUT and self.limit is not None and self.total.evaluations >= self.limit:
            raise Stopped(StopReason.LIMIT, limit=self.limit)

    def end_listening(self) -> None:
        """Ends a function that is only listened to.

        Raises:
            Stopped: it is.
        """
        if self.listened:
            raise Stopped(StopReason.INTERRUPTED)

    def interrupted(self) -> bool:
        """Whether the run has been asked to stop."""
        return self.should_stop()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Lets the passes that follow come to their end, also where the run has been asked to stop."""
        before, self.should_stop = self.should_stop, lambda: False
        try:
            yield
        finally:
            self.should_stop = before

    def pay(self, passes: float) -> None:
        """Counts held-out passes that are no evaluations: parts of them, and gradients."""
        self.total.forward_equivalents += passes
        self.meter.forward_equivalents += passes

    @contextlib.contextmanager
    def prepaid(self) -> Iterator[None]:
        """Counts no passes for a while: they are in the cost of the outcome that is made of them."""
        meters = self.total, self.meter
        before = [meter.forward_equivalents for meter in meters]
        yield
        for meter, passes in zip(meters, before, strict=True):
            meter.forward_equivalents = passes


def _add(meter: Meter, outcome: Outcome, *, again: bool) -> None:
    _count(meter, outcome.seconds, outcome.passes, again=again)


def _count(meter: Meter, seconds: float, passes: float, *, again: bool = False) -> None:
    meter.evaluations += not again
    meter.seconds += seconds
    meter.forward_equivalents += passes


def _made(measure: Callable[[], Outcome], memory: Recalling | None) -> tuple[Outcome, bool]:
    """An outcome that other commands know, or one that is measured now; whether it was."""
    outcome = memory.known() if memory is not None else None
    if outcome is not None:
        return outcome, False
    outcome = measure()
    if memory is not None:
        memory.keep(outcome)
    return outcome, True

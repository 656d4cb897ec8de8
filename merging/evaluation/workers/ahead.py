"""What a strategy will probably ask next, made by idle workers before it asks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from merging.evaluation.workers.crew import Crew, Job
from merging.evaluation.workers.requests import Kind, Piece
from merging.values.outcome import Outcome

LOGITS = "logits "
"""Begins the key of what is kept until it is taken."""
AHEAD = 2
"""Models for each worker whose logits are made before they are taken."""
FAR = 256
"""Things of a plan that are looked at where its order is asked for."""
Known = tuple[Outcome, frozenset[str] | None]
"""An outcome, and the statistics that making it found to be reached."""


@dataclass(eq=False, kw_only=True)
class Look:
    """An evaluation that will probably be asked for.

    Attributes:
        key: decides it.
        what: the model, the split and whether it is of record, as a worker is asked.
        logits: the logits are asked for, not what they mean; they are kept until they are taken.
        promising: says of its outcome whether ``then`` follows.
        then: makes the piece that follows, numbered by the searches before it.
        searches: how many searches that piece makes, where what it tries is not kept.
        known: its outcome, where another command has made it.
    """

    key: str = ""
    what: Any = None
    logits: bool = False
    promising: Callable[[Outcome], bool] = lambda outcome: True
    then: Callable[[int], tuple[str, Piece]] | None = None
    searches: int = 0
    known: Outcome | None = None
    _pieces: dict[int, tuple[str, Piece]] = field(default_factory=dict)

    def piece(self, number: int) -> tuple[str, Piece]:
        """The piece and its key, where so many searches were made before.

        Raises:
            ValueError: nothing follows it.
        """
        if self.then is None:
            raise ValueError("nothing follows this look")
        if number not in self._pieces:
            self._pieces[number] = self.then(number)
        return self._pieces[number]


class Ahead:
    """Speculation: it decides nothing, and only makes what would be made.

    A plan is a list of looks in the order in which the strategy would take them if none of them changed anything. Idle
    workers take the first that is not made; where its outcome is promising, the piece that follows it comes before
    later looks. Pieces are numbered as the strategy would number its searches, so that all they draw is the same.

    Args:
        crew: makes it.

    Attributes:
        known: gives the outcome of an evaluation that is known without a pass; None: it is not.
        memo: outcomes that were made, by key.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.known: Callable[[str], Outcome | None] = lambda key: None
        self.memo: dict[str, Known] = {}
        self._looks: dict[str, Job] = {}
        self._pieces: dict[str, Job] = {}
        self._plan: list[Look] = []
        self._more: Iterator[Look] = iter(())
        self._searches = 0
        crew.supply, crew.least = self._supply, self._least

    def announce(self, looks: Iterable[Look], searches: int) -> None:
        """Takes what will probably be asked next, in the place of what was announced before.

        Args:
            looks: they are made as far as there is use for them.
            searches: how many the strategy has made so far.
        """
        self._plan, self._more, self._searches = [], iter(looks), searches
        stale = [key for key in self._looks if key.startswith(LOGITS)]  # they are large, and nobody has taken them
        self.crew.drop([self._looks.pop(key) for key in stale])
        running = {key for key, job in self._pieces.items() if not job.done}
        if running:  # what is wanted no more makes room at once
            wanted = {key for key, _ in self._soon() if key in running}
            self._forget(running - wanted)

    def before(self, looks: Iterable[Look]) -> None:
        """Takes what will be asked before all that was announced."""
        self._plan = [*looks, *self._plan]

    def job(self, key: str) -> Job | None:
        """The request that makes an evaluation, where one is on its way."""
        job = self._looks.get(key)
        return job if job is not None and not (job.done or job.dropped) else None

    def piece(self, key: str, piece: Piece) -> Job:
        """The request for a piece that the strategy has come to: on its way, or made now."""
        job = self._pieces.get(key)
        if job is None or job.error is not None or job.dropped:
            job = self._pieces[key] = self._asked(piece)
        self.crew.hurry(job)
        return job

    def take(self, key: str, found: Known) -> None:
        """Keeps an outcome that was made."""
        self.memo.setdefault(key, found)

    def _asked(self, piece: Piece) -> Job:
        def part(told: tuple[Sequence[tuple[str, Outcome]], frozenset[str] | None]) -> None:
            for key, outcome in told[0]:
                self.take(key, (outcome, told[1]))

        return self.crew.job(Kind.PIECE, piece, short=False, on_part=part)

    def _supply(self) -> Job | None:
        """The first thing of the plan that nobody makes yet."""
        for key, make in self._due():
            if key in self._looks or key in self._pieces:
                continue
            return make()
        return None

    def _due(self) -> Iterator[tuple[str, Callable[[], Job | None]]]:
        """What the plan comes to by what is known, in order: its key, and what asks for it.

        Where the strategy's own code fails in it, the plan is given up: the error shows where it is asked in earnest.
        """
        try:
            yield from self._comes_to()
        except Exception:
            self._plan, self._more = [], iter(())

    def _comes_to(self) -> Iterator[tuple[str, Callable[[], Job | None]]]:
        number: int | None = self._searches
        for look in self._looks_in_order():
            outcome = look.known or (self._outcome(look.key) if look.what is not None else None)
            if look.logits and look.key in self._looks:
                continue
            if look.what is not None and outcome is None:
                yield look.key, functools.partial(self._look, look)
                number = None if look.searches else number  # whether it will search, nobody knows
                continue
            if look.then is None or (outcome is not None and not look.promising(outcome)):
                continue
            if number is None:
                continue
            key, piece = look.piece(number)
            yield key, functools.partial(self._start, key, piece)
            number += look.searches

    def _soon(self) -> Iterator[tuple[str, Callable[[], Job | None]]]:
        """The beginning of what the plan comes to, which may have no end."""
        return itertools.islice(self._due(), FAR)

    def _looks_in_order(self) -> Iterator[Look]:
        yield from self._plan
        for look in self._more:
            self._plan.append(look)
            yield look

    def _look(self, look: Look) -> Job | None:
        if look.logits and sum(key.startswith(LOGITS) for key in self._looks) >= AHEAD * self.crew.count:
            return None  # they are large
        job = self._looks[look.key] = self.crew.job(Kind.LOGITS if look.logits else Kind.MEASURE, look.what)
        return job

    def taken(self, key: str) -> Job | None:
        """The request for logits that were announced, which is forgotten: whoever takes them has them."""
        return self._looks.pop(key, None)

    def _start(self, key: str, piece: Piece) -> Job:
        job = self._pieces[key] = self._asked(piece)
        return job

    def _outcome(self, key: str) -> Outcome | None:
        job = None if key.startswith(LOGITS) else self._looks.get(key)
        if key not in self.memo and job is not None and job.done and job.error is None and job.answer is not None:
            self.take(key, job.answer)
        return self.memo[key][0] if key in self.memo else self.known(key)

    def _least(self, running: Sequence[Job]) -> Job | None:
        """The piece that stands last in the plan, or in none; None where all that runs is asked for."""
        pieces = {id(job) for job in self._pieces.values()}
        running = [job for job in running if id(job) in pieces]
        if not running:
            return None
        places = {id(self._pieces[key]): n for n, (key, _) in enumerate(self._soon()) if key in self._pieces}
        last = max(running, key=lambda job: places.get(id(job), len(places)))
        self._pieces = {key: job for key, job in self._pieces.items() if job is not last}
        return last

    def _forget(self, keys: Iterable[str]) -> None:
        self.crew.drop([self._pieces.pop(key) for key in keys])

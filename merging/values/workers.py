"""The workers of a run: how they are doing now, for who is told, and what each was, for the report."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from merging.values.formats import known_fields
from merging.values.wording import beginning, plural, some

OFTEN = 0.2
"""Seconds between two looks at the workers, however often there is news of them."""
PACE = 10.0
"""Seconds over which evaluations a second are counted."""
PLACES = 6
"""Machines that a line names."""


@dataclass(frozen=True, kw_only=True)
class WorkersState:
    """The workers as they are at one moment.

    Attributes:
        workers: how many there are.
        busy: how many of them have something to do.
        done: outcomes that they have answered with, all of them together.
        lost: how often one was lost.
    """

    workers: int
    busy: int
    done: int = 0
    lost: int = 0

    def words(self, rate: float | None = None, room: int = 80) -> str:
        """Says how they are doing, in as many words as there is room for; in none where no word fits.

        >>> WorkersState(workers=4, busy=3, done=1204, lost=1).words(12.31)
        '3 of 4 workers busy, 1 lost, 1,204 done, 12.3/s'
        >>> WorkersState(workers=4, busy=3, done=1204).words(12.31, room=16)
        '3/4 busy, 12.3/s'

        Args:
            rate: outcomes a second; None where nobody knows yet.
            room: characters.
        """
        long, short = f"{self.busy} of {plural(self.workers, 'worker')} busy", f"{self.busy}/{self.workers} busy"
        lost = [f"{self.lost} lost"] if self.lost else []
        done = [f"{self.done:,} done"] if self.done else []
        pace = [] if rate is None else [f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"]
        tries = ([long, *lost, *done, *pace], [short, *lost, *done, *pace], [short, *lost, *pace], [short])
        return next((text for text in (", ".join(parts) for parts in tries) if len(text) <= room), "")


class Seen:
    """The workers as somebody sees them who is told more often than he looks, with outcomes a second.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state: WorkersState | None = None
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, state: WorkersState) -> bool:
        """Takes the news; says whether to look at them now: a while after the last look, or as one is lost or all rest.

        Args:
            state: the workers as they are now.
        """
        now, before = self._clock(), self.state
        self.state = state
        if self._seen and state.done < self._seen[-1][1]:  # other workers, which have begun anew
            self._seen.clear()
        if self._seen and now - self._seen[-1][0] < OFTEN and before is not None:
            return state.lost != before.lost or state.busy == 0 < before.busy
        self._seen.append((now, state.done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= PACE:
            self._seen.popleft()
        return True

    def words(self, room: int = 80) -> str:
        """Says how they are doing, in as many words as there is room for; in none before there is news.

        Args:
            room: characters.
        """
        if self.state is None:
            return ""
        (since, before), now = self._seen[0], self._clock()
        rate = (self.state.done - before) / (now - since) if now - since >= 1.0 else None
        return self.state.words(rate, room)


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """One worker of a run, as the report keeps it; one that took a lost one's place is another.

    Attributes:
        number: its number, which who takes its place has too.
        place: host and process, such as ``node-3, process 812``.
        device: the device of its passes, by its name, such as ``cpu`` or ``NVIDIA H100``.
        torch: version of torch.
        fingerprint: digest of all that decides the bits of its answers: device, driver, torch, a batch of its own.
        answers: how many outcomes it has answered with, those of a search one by one.
        lost: how it ended, such as ``killed by SIGKILL``; empty where it did not before the run.
    """

    number: int
    place: str
    device: str = ""
    torch: str = ""
    fingerprint: str = ""
    answers: int = 0
    lost: str = ""

    @property
    def host(self) -> str:
        """The machine of the place."""
        return self.place.partition(",")[0]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkerFacts:
        """Makes it from what a report holds, whose later versions may know more."""
        return cls(**known_fields(cls, data))


def lost_line(number: int, place: str, reason: str, others: int = 1) -> str:
    """The line that says that a worker is gone, and that the run goes on.

    >>> lost_line(2, "node-3, process 812", "killed by SIGKILL")
    'warning: worker 2 (node-3, process 812) was killed by SIGKILL; its work goes to others'

    Args:
        number: the worker's number.
        place: its host and process.
        reason: how it has ended.
        others: how many workers are left.
    """
    why = reason if reason.startswith(("killed", "stopped", "ended")) else f"lost: {reason}" if reason else "lost"
    verb = "" if why.startswith("ended") else "was "
    after = "its work goes to others" if others else "another one takes its place"
    return f"warning: worker {number} ({beginning(place, 80)}) {verb}{beginning(why, 160)}; {after}"


def told_workers(workers: Iterable[WorkerFacts]) -> str:
    """Says in a line on what a run was evaluated; empty where this process has done it alone.

    >>> facts = [WorkerFacts(number=n, place=f"alpha, process {n}", device="cpu", answers=40) for n in range(2)]
    >>> told_workers(facts)
    'evaluated on 2 workers: cpu, on alpha; 80 answers'
    """
    known = tuple(workers)
    if not known:
        return ""
    kinds = dict.fromkeys(
        ", ".join(part for part in (one.device, one.torch and f"torch {one.torch}") if part) for one in known
    )
    hosts: dict[str, set[int]] = {}
    for one in known:
        hosts.setdefault(one.host, set()).add(one.number)
    counted = [host if len(hosts) == 1 else f"{host} ({len(numbers)})" for host, numbers in hosts.items()]
    where = [" or ".join(kind for kind in kinds if kind), f"on {some(counted, PLACES)}"]
    lost = sum(bool(one.lost) for one in known)
    told = [plural(sum(one.answers for one in known), "answer", ",")] + [f"{lost} lost on the way"] * bool(lost)
    count = len({one.number for one in known})
    return f"evaluated on {plural(count, 'worker')}: {', '.join(filter(None, where))}; {', '.join(told)}"

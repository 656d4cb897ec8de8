"""An event simulation of evaluation on many workers, as the driver has it done.

The driver reads outcomes in the order of the sequential run; workers only make them earlier. Of the candidates in order
the first one that is due comes first: its search, once its average is known and promising; the average of the next one.
A whole search runs on one worker. All of it is against one incumbent; once a candidate is accepted, what follows it is
dropped, and a worker is free when the evaluation that it is in has ended.

Two policies: ``queue`` gives a free worker the next thing that is due, however far ahead that is; ``rounds`` takes as
many candidates as there are workers, and the next ones when all of these are settled. Three ways to cut: ``nothing``;
``later``, where all workers share each evaluation of the searches after an accepted candidate's first one; ``all``,
where they share every evaluation of the candidates in order, and nothing is made ahead.

The trace knows what was promising against the incumbent of its time, and the simulation takes it to be so against
earlier ones, too: that decides only what is made in vain, and which worker is busy with it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.workers.program import AtOnce, Candidate, Chain, Costs, InOrder, Phase


@dataclass
class Timeline:
    """How a run went.

    Attributes:
        seconds: when it ended.
        made: evaluations that were made, with those in vain.
        rounds: how often candidates in order were taken, a window or (in a queue) a stretch at a time.
    """

    seconds: float = 0.0
    made: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Policy:
    """Who does what: see the module."""

    workers: int
    costs: Costs = field(default_factory=Costs)
    rounds: bool = False
    cut: str = "nothing"

    def request(self, chain: Chain) -> float:
        """Seconds of a chain on a worker, with the request."""
        return self.costs.overhead + self.costs.paid(chain) if chain.evaluations else 0.0

    def shared(self, chain: Chain) -> float:
        """Seconds of a chain whose evaluations all workers share, a request each."""
        if not chain.evaluations:
            return 0.0
        return (
            self.costs.loading
            + chain.evaluations * self.costs.overhead
            + chain.seconds * self.costs.share(self.workers)
        )


def simulate(phases: Sequence[Phase], policy: Policy) -> Timeline:
    """Goes through a run's phases, one after the other."""
    line = Timeline()
    for phase in phases:
        if isinstance(phase, AtOnce):
            _at_once(phase, policy, line)
        elif policy.cut == "all":
            line.seconds += sum(policy.shared(chain) for chain in phase.chains)
            line.made += sum(chain.evaluations for chain in phase.chains)
            line.rounds += len(phase.candidates)
        else:
            _in_order(phase, policy, line)
    return line


def _at_once(phase: AtOnce, policy: Policy, line: Timeline) -> None:
    """Each free worker takes the next evaluation."""
    free = [line.seconds] * policy.workers
    for chain in phase.chains:
        heapq.heapreplace(free, free[0] + policy.request(chain))
        line.made += chain.evaluations
    line.seconds = max(free)


def _in_order(phase: InOrder, policy: Policy, line: Timeline) -> None:
    free, begin = [line.seconds] * policy.workers, 0
    while begin < len(phase.candidates):
        stretch = _Stretch(phase.candidates[begin:], policy, free, line)
        begin += stretch.run()
        free = stretch.free


@dataclass
class _Job:
    """A request that is due or under way."""

    candidate: int
    part: int  # 0: the average, 1: the search, 2 and on: what is only reported
    chain: Chain
    began: float = 0.0
    worker: int = 0


class _Stretch:
    """From one incumbent to the next: all that is tried against one.

    Args:
        candidates: those that are left, of which the first accepted one ends this.
        policy: who does what.
        free: when each worker is.
        line: counts, and says when it begins.
    """

    def __init__(self, candidates: Sequence[Candidate], policy: Policy, free: list[float], line: Timeline) -> None:
        self.free, self._policy, self._line = free, policy, line
        self._candidates, self._settled = candidates, 0
        self._begun, self._ended = set[tuple[int, int]](), set[tuple[int, int]]()
        self._running, self._parts = list[_Job](), [self._split(candidate) for candidate in candidates]
        self._within = self._window(0)
        line.rounds += 1

    def run(self) -> int:
        """Until a candidate is accepted or all are settled; returns how many were settled."""
        while not self._settle():
            self._start()
            now = self._line.seconds
            later = [self._end(job) for job in self._running] + [time for time in self.free if time > now]
            self._line.seconds = min(time for time in later if time > now or not self._running)
            for job in [job for job in self._running if self._end(job) <= self._line.seconds]:
                self._running.remove(job)
                self._ended.add((job.candidate, job.part))
                self._line.made += job.chain.evaluations
        return self._settled

    def _window(self, begin: int) -> int:
        return begin + self._policy.workers if self._policy.rounds else len(self._candidates)

    def _settle(self) -> bool:
        """Reads outcomes in order, as far as they are there; True where the stretch is over."""
        while self._settled < len(self._candidates):
            candidate = self._candidates[self._settled]
            if not all(self._done(self._settled, part, chain) for part, chain in self._parts[self._settled]):
                return False
            self._settled += 1
            if candidate.accepted:
                self._drop()
                self._share(candidate)
                return True
            if self._settled == self._within < len(self._candidates):
                self._within = self._window(self._settled)
                self._line.rounds += 1
        return True

    def _split(self, candidate: Candidate) -> list[tuple[int, Chain]]:
        search = candidate.searches[0] if self._shares(candidate) else candidate.search
        return list(enumerate((candidate.look, search, *candidate.after)))

    def _shares(self, candidate: Candidate) -> bool:
        return self._policy.cut == "later" and candidate.accepted and len(candidate.searches) > 1

    def _done(self, number: int, part: int, chain: Chain) -> bool:
        return not chain.evaluations or (number, part) in self._ended

    def _due(self) -> _Job | None:
        """The first thing that can begin, of the candidates in order."""
        for number in range(self._settled, min(self._within, len(self._candidates))):
            parts = self._parts[number]
            for part, chain in parts:
                if (number, part) in self._begun or not chain.evaluations:
                    continue
                before = parts[: min(part, 2)]
                if all(self._done(number, *each) for each in before) and (part < 2 or number == self._settled):
                    return _Job(number, part, chain)
        return None

    def _start(self) -> None:
        for worker in [worker for worker, time in enumerate(self.free) if time <= self._line.seconds]:
            job = self._due()
            if job is None:
                return
            job.began, job.worker = self._line.seconds, worker
            self._begun.add((job.candidate, job.part))
            self._running.append(job)
            self.free[worker] = self._end(job)

    def _end(self, job: _Job) -> float:
        return job.began + self._policy.request(job.chain)

    def _drop(self) -> None:
        """Workers whose requests nobody wants any more end the evaluation that they are in."""
        now = self._line.seconds
        for job in self._running:
            lead = self._policy.request(job.chain) - job.chain.seconds
            made = math.ceil(max(now - job.began - lead, 0.0) / job.chain.unit - 1e-9) if job.chain.unit else 0
            self.free[job.worker] = max(now, job.began + lead + made * job.chain.unit)
            self._line.made += made

    def _share(self, candidate: Candidate) -> None:
        """The later searches of the accepted candidate, once all workers are free."""
        if self._shares(candidate):
            begin = max(self._line.seconds, *self.free)
            seconds = sum(self._policy.shared(chain) for chain in candidate.searches[1:])
            self._line.seconds = begin + seconds
            self._line.made += sum(chain.evaluations for chain in candidate.searches[1:])
            self.free = [self._line.seconds] * self._policy.workers

"""What a run evaluates, and what needs what: phases of evaluations at once, and of candidates in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Chain:
    """Evaluations of which each needs the one before: a search, or a single one.

    Args:
        evaluations: how many; none where all were known.
        seconds: of all of them, on one worker.
    """

    evaluations: int
    seconds: float

    @property
    def unit(self) -> float:
        """Seconds of one evaluation, on average."""
        return self.seconds / self.evaluations if self.evaluations else 0.0


@dataclass(frozen=True)
class Candidate:
    """One model that was tried against an incumbent.

    Args:
        look: the average that says whether it is worth a search; of a greedy soup, all there is.
        searches: one after the other; the first one decides. None where the average was not promising.
        after: single evaluations that are only reported, made once the candidate is refused.
        accepted: whether it became part of the incumbent, against which what follows was tried.
    """

    look: Chain
    searches: tuple[Chain, ...] = ()
    after: tuple[Chain, ...] = ()
    accepted: bool = False

    @property
    def search(self) -> Chain:
        """All of its searches, one after the other on the same two ends."""
        return Chain(sum(each.evaluations for each in self.searches), sum(each.seconds for each in self.searches))

    @property
    def later(self) -> float:
        """Seconds of the searches after the first one."""
        return sum(each.seconds for each in self.searches[1:])

    @property
    def chains(self) -> tuple[Chain, ...]:
        """All that was evaluated for it, by request: what needs the same models on a worker."""
        return (self.look, self.search, *self.after)


@dataclass(frozen=True)
class AtOnce:
    """Evaluations of which none needs another: a ranking, test sets."""

    chains: tuple[Chain, ...]


@dataclass(frozen=True)
class InOrder:
    """Candidates, each against the incumbent that those before it have made."""

    candidates: tuple[Candidate, ...]

    @property
    def chains(self) -> tuple[Chain, ...]:
        """All that was evaluated."""
        return tuple(chain for candidate in self.candidates for chain in candidate.chains)

    def stretches(self) -> list[tuple[Candidate, ...]]:
        """The candidates between two acceptances, with the one that ends them: all against one incumbent."""
        found, begin = list[tuple[Candidate, ...]](), 0
        for number, candidate in enumerate(self.candidates, 1):
            if candidate.accepted or number == len(self.candidates):
                found.append(self.candidates[begin:number])
                begin = number
        return found


Phase: TypeAlias = AtOnce | InOrder


@dataclass(frozen=True)
class Costs:
    """What is paid besides the evaluations themselves.

    Args:
        overhead: seconds a request.
        loading: seconds for bringing both ends of a search, or the model of an evaluation, to a worker.
        batches: of one evaluation; it can be cut between them only.
    """

    overhead: float = 0.0
    loading: float = 0.0
    batches: int = 1

    def share(self, workers: int) -> float:
        """The part of an evaluation that the busiest of so many workers makes where all of them share it."""
        return -(-self.batches // workers) / self.batches

    def paid(self, chain: Chain) -> float:
        """Seconds of a chain on the worker that makes it."""
        return self.loading + chain.seconds if chain.evaluations else 0.0


def sequential(phases: Sequence[Phase], costs: Costs) -> float:
    """Seconds of the run in one process, which sends no requests."""
    return sum(costs.paid(chain) for phase in phases for chain in phase.chains)


def asked(phases: Sequence[Phase]) -> int:
    """Evaluations of the run."""
    return sum(chain.evaluations for phase in phases for chain in phase.chains)

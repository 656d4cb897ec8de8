"""Rows of the simulation: makespan, bound and what is made in vain, for each number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.workers.bound import bound, clairvoyant
from benchmarks.workers.program import Costs, InOrder, Phase, asked, sequential
from benchmarks.workers.schedule import Policy, simulate

WORKERS = (1, 2, 4, 8, 64)


def rows(
    name: str, phases: Sequence[Phase], costs: Costs, workers: Sequence[int] = WORKERS
) -> Iterator[dict[str, Any]]:
    """A row for each way to cut that makes a difference, and each number of workers.

    ``speed_up`` is against one process without workers, ``bound`` the largest speed-up that any scheduler could reach
    which keeps every decision (:mod:`benchmarks.workers.bound`). Of evaluations that are whole, ``bound_by_guesses``
    is the bound where acceptances may be guessed, and ``speed_up_by_rounds`` that of the other policy.
    """
    alone, wanted = sequential(phases, costs), asked(phases)
    for cut in _cuts(phases, costs):
        for count in workers:
            queue = simulate(phases, Policy(count, costs, cut=cut))
            least = bound(phases, count, costs, cut=cut)
            row = {
                "run": name,
                "cut": cut,
                "workers": count,
                "seconds": queue.seconds,
                "speed_up": alone / queue.seconds,
                "bound": alone / least,
                "share_of_bound": least / queue.seconds,
                "evaluations": wanted,
                "in_vain": queue.made - wanted,
            }
            if cut == "nothing":
                rounds = simulate(phases, Policy(count, costs, rounds=True))
                row["bound_by_guesses"] = alone / clairvoyant(phases, count, costs)
                row |= {"speed_up_by_rounds": alone / rounds.seconds, "rounds": rounds.rounds}
            yield row


def _cuts(phases: Sequence[Phase], costs: Costs) -> list[str]:
    later = any(candidate.later for phase in phases if isinstance(phase, InOrder) for candidate in phase.candidates)
    return ["nothing", *(["later"] * later + ["all"] if costs.batches > 1 else [])]

"""What no scheduler can beat that keeps every decision, and every evaluation on the machine's terms.

A scheduler *keeps every decision* if it believes an acceptance only once all candidates before it are refused: what it
then knows is what the sequential run knew. So the stretches between two acceptances cannot overlap, and the bound of a
run is the sum over its stretches (and over its phases of evaluations at once) of

    max(work ÷ workers, longest chain)

with the work that the sequential run asks for in that stretch, nothing more, and as chain a candidate's average and the
searches after it. The bound allows what no real scheduler can: it knows which candidate will be accepted, evaluates
nothing in vain, may move a search to another worker between any two evaluations, and pays for no request. Where one
evaluation may be cut, a chain is as short as its busiest worker's parts.

It is the bound of schedulers that wait for refusals. One that guessed every acceptance right and caught up on the
refusals later could overlap stretches; :func:`clairvoyant` bounds that one, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.workers.program import AtOnce, Candidate, Costs, Phase


def bound(phases: Sequence[Phase], workers: int, costs: Costs, *, cut: str = "nothing") -> float:
    """Seconds of a run, at the least.

    Args:
        phases: what it evaluates.
        workers: how many.
        costs: what is paid besides; of these only loading counts here, and into how many batches an evaluation falls.
        cut: which evaluations may be shared by all workers: ``nothing``, ``later`` searches or ``all``.
    """
    seconds = 0.0
    for phase in phases:
        if isinstance(phase, AtOnce):
            seconds += singles([costs.paid(chain) for chain in phase.chains], workers)
        else:
            seconds += sum(_stretch(stretch, workers, costs, cut) for stretch in phase.stretches())
    return seconds


def clairvoyant(phases: Sequence[Phase], workers: int, costs: Costs) -> float:
    """Seconds of a run at the least where every acceptance may be guessed, and evaluations are whole.

    One chain runs through the acceptances of a phase to any of its candidates; the rest may be done at any time.
    """
    seconds = 0.0
    for phase in phases:
        work = sum(costs.paid(chain) for chain in phase.chains)
        if isinstance(phase, AtOnce):
            seconds += singles([costs.paid(chain) for chain in phase.chains], workers)
            continue
        before = longest = 0.0
        for stretch in phase.stretches():
            longest = max(longest, before + max(_path(candidate, costs) for candidate in stretch))
            before += sum(_path(candidate, costs) for candidate in stretch if candidate.accepted)
        seconds += max(work / workers, longest)
    return seconds


def singles(seconds: Sequence[float], workers: int) -> float:
    """What single evaluations at once take, at the least.

    Of the longest k · workers + 1 of them, k + 1 are made by one worker, whichever they are.
    """
    ordered = sorted(seconds, reverse=True)
    found = sum(ordered) / workers
    for k in range(-(-len(ordered) // workers)):
        found = max(found, sum(ordered[k * (workers - 1) : k * workers + 1]))
    return found


def _stretch(stretch: Sequence[Candidate], workers: int, costs: Costs, cut: str) -> float:
    work = sum(costs.paid(chain) for candidate in stretch for chain in candidate.chains)
    longest = max(_path(candidate, costs, cut, costs.share(workers)) for candidate in stretch)
    if cut != "all":
        longest = max(longest, singles([costs.paid(candidate.look) for candidate in stretch], workers))
    return max(work / workers, longest)


def _path(candidate: Candidate, costs: Costs, cut: str = "nothing", share: float = 1.0) -> float:
    """A candidate's average and searches, where all workers share what may be cut."""
    path = costs.paid(candidate.look) + costs.paid(candidate.search)
    shared = {"nothing": 0.0, "later": candidate.later, "all": candidate.look.seconds + candidate.search.seconds}[cut]
    return path - (1 - share) * shared

"""A run of ours as a program: from its journal, with the seconds that each evaluation has taken there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.workers.program import AtOnce, Candidate, Chain, InOrder, Phase
from merging.plugins.task import HELD_OUT

AT_ONCE = ("best", "uniform")
"""Methods of a run whose evaluations need nothing but the models."""


def recorded(folder: Path) -> list[Phase]:
    """The phases of a finished ``greedy`` or ``manifoldmix`` with its baselines.

    Evaluations that were known already are in no journal and cost nothing. A candidate's first evaluation is its
    average where it has that average's score; all others are its search, the check of the basin and the mix that is
    scored again included.

    Args:
        folder: of the run.

    Raises:
        click.UsageError: the run is of another strategy, or has not ended.
    """
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    if not any(event["event"] == "finished" for event in events):
        raise click.UsageError(f"{folder}: this run has not ended")
    phases, unranked = list[Phase](), len(set(events[0]["inputs"].values()))
    for name, its in _methods(events):
        if name in AT_ONCE:
            phases.append(AtOnce(_evaluations(its)))
        elif name in ("greedy", "manifoldmix"):
            phases += [AtOnce(_evaluations(its[:unranked])), InOrder(_candidates(its[unranked:]))]
        else:
            raise click.UsageError(f"{folder}: a program is made of greedy and manifoldmix, not of {name}")
        unranked = 0  # the first method has ranked the models
    others = [event for event in events if event["event"] == "evaluation" and not _held_out(event)]
    return [phase for phase in (*phases, AtOnce(_evaluations(others))) if phase.chains]


def _methods(events: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each method with its held-out evaluations and decisions, those for the record left out."""
    name, its = "", list[dict[str, Any]]()
    for event in events:
        if event["event"] == "strategy":
            if name:
                yield name, its
            name, its = event["name"], []
        elif event["event"] == "decision" or (_held_out(event) and not event.get("record")):
            its.append(event)
    if name:
        yield name, its


def _held_out(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "evaluation" and event["split"] == HELD_OUT)


def _candidates(events: list[dict[str, Any]]) -> tuple[Candidate, ...]:
    found, since = list[Candidate](), list[dict[str, Any]]()
    for event in events:
        if event["event"] == "evaluation":
            since.append(event)
            continue
        own = bool(since) and since[0]["score"] == event.get("average")
        look, search = _chain(since[:own]), since[own:]
        found.append(Candidate(look, (_chain(search),) if search else (), accepted=bool(event["accepted"])))
        since = []
    return tuple(found)


def _evaluations(events: Iterable[dict[str, Any]]) -> tuple[Chain, ...]:
    return tuple(_chain([event]) for event in events)


def _chain(events: list[dict[str, Any]]) -> Chain:
    return Chain(len(events), sum(float(event["seconds"]) for event in events))

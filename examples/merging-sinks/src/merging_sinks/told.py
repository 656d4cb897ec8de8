"""What both sinks make of what they are told."""

from __future__ import annotations

import json
from collections.abc import Sequence

import merging


def curves(event: merging.SinkEvent, run: merging.SinkRun) -> dict[str, float]:
    """The points that an event adds to curves: name → value, over evaluations.

    A benchmark's runs have curves of one name each, which then lie over each other.
    """
    of = "" if run.part else f"/{event.strategy}"
    found: dict[str, float] = {}
    if event.scored is not None:
        found[f"score{of}"] = event.scored
        found |= {f"incumbent{of}": event.best} if event.best is not None else {}
    if event.name == "decision" and isinstance(event.facts.get("accepted"), bool):
        found[f"accepted{of}"] = float(event.facts["accepted"])
    return found


def decisions(events: Sequence[merging.SinkEvent]) -> str:
    """The decisions of a run, a line of JSON each."""
    return "".join(json.dumps({"strategy": event.strategy, **event.facts}) + "\n" for event in events)


def words(end: merging.SinkEnd) -> str:
    """How a run has ended, in a few lines: the verdict, what was gained and lost, and why it is not finished."""
    state = f"{end.state}: {end.why}" if end.why else end.state
    return "\n".join([*([end.verdict] if end.verdict else []), *end.answer.get("lines", ()), state])

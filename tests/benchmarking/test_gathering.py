"""From runs to rows: what decides which rows there are is what happened, not how it is said."""

from __future__ import annotations

import numpy as np
import pytest

from merging.benchmarking.gathering import Asked, gather
from merging.benchmarking.runs import MethodRun
from merging.evaluation.comparing import Comparer
from merging.objectives.accuracy import Accuracy
from merging.testing import tiny_task
from merging.values.outcome import Outcome
from merging.values.states import MethodState, RunState

TASK = tiny_task()


def run(partition: str, status: MethodState, why: str = "", digest: str = "") -> MethodRun:
    sets = {"held-out": TASK.held_out, **TASK.tests}
    seen = {
        name: Outcome(score=1.0, samples=len(split), correct=np.packbits(np.ones(len(split), dtype=bool)))
        for name, split in sets.items()
    }
    entry = {"method": "fisher", "partition": partition, "seed": 0, "strategy": {"name": "fisher", "options": {}}}
    finished = status is MethodState.FINISHED
    return MethodRun(
        entry=entry, status=status, why=why, outcomes=seen if finished else {}, digest=digest, ingredients=("m",)
    )


@pytest.mark.parametrize("why", ["--max-evaluations 2 reached before the first result", "partitioner 'layer' needs x"])
@pytest.mark.parametrize("state", [MethodState.CANNOT_RUN, MethodState.FAILED])
def test_a_reason_drops_no_row(state: MethodState, why: str) -> None:
    """All methods under one partition ended for one reason: that says nothing of whether it fits the model."""
    runs = [run("whole", MethodState.FINISHED, digest="a"), run("layer", state, why)]
    found = gather(runs, (), Asked({"fisher": ("whole", "layer")}, (0,)), Comparer(Accuracy(), TASK), ("m",))
    assert [(row.label, row.status) for row in found.rows] == [
        ("fisher (whole)", MethodState.FINISHED),
        ("fisher (layer)", state),
    ]
    assert found.rows[1].why == why
    assert not [note for note in found.notes if "no method was run" in note]
    assert found.state is RunState.FINISHED


def test_a_partition_that_was_refused_is_a_note() -> None:
    why = "partitioner 'clip-c8' needs visual"
    runs = [run("whole", MethodState.FINISHED, digest="a"), run("clip-c8", MethodState.CANNOT_RUN, why)]
    asked = Asked({"fisher": ("whole", "clip-c8")}, (0,), refused={"clip-c8": why})
    found = gather(runs, (), asked, Comparer(Accuracy(), TASK), ("m",))
    assert [row.label for row in found.rows] == ["fisher"]
    assert f"no method was run under clip-c8: {why}" in found.notes

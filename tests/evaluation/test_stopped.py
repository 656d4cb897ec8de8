"""Why a run ends is a value; its words are for people."""

from __future__ import annotations

import pickle

import pytest

from merging.errors import Stopped, StopReason


@pytest.mark.parametrize(
    ("stop", "reason", "words"),
    [
        (Stopped(), StopReason.INTERRUPTED, "interrupted"),
        (Stopped(StopReason.INTERRUPTED), StopReason.INTERRUPTED, "interrupted"),
        (Stopped(StopReason.LIMIT, limit=5), StopReason.LIMIT, "--max-evaluations 5 reached"),
    ],
)
def test_reason_and_words_survive_another_process(stop: Stopped, reason: StopReason, words: str) -> None:
    for seen in (stop, pickle.loads(pickle.dumps(stop))):  # noqa: S301 - our own
        assert (seen.reason, seen.limit, str(seen)) == (reason, stop.limit, words)


def test_no_reason_is_made_up() -> None:
    with pytest.raises(ValueError, match="not a valid StopReason"):
        Stopped("--max-evaluations 5 reached")  # type: ignore[arg-type]

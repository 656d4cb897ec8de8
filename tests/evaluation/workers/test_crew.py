"""Who is asked what when things go wrong: nobody waits for what nobody does."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from merging.errors import CheckpointError, WorkersError
from merging.evaluation.workers.ahead import Ahead, Look
from merging.evaluation.workers.crew import Crew, Job
from merging.evaluation.workers.requests import Answer, Kind
from tests.evaluation.workers.scripted import ALIKE, Scripted, scripted


def moved(crew: Crew, times: int = 4) -> None:
    """Moves a crew on until what was said has been heard."""
    for _ in range(times):
        crew.pump(0.0)


def kinds(backend: Scripted, worker: int) -> list[Kind]:
    return [asked.kind for asked in backend.asked[worker]]


def test_two_requests_that_lack_files(tmp_path: Path) -> None:
    """The second one is put beside the first, not in its place."""
    backend = Scripted(1)
    with scripted(backend, tmp_path) as crew:
        digests = []
        for number in range(2):
            digests.append(str(number) * 64)
            (tmp_path / digests[-1]).write_bytes(b"tensor")
        jobs = [crew.ask(Kind.MEASURE, number) for number in range(2)]
        for digest in digests:
            backend.say(0, "lacking", (digest,))
        for _ in range(20):
            moved(crew)
            if not backend.asked[0]:
                break
            file = kinds(backend, 0)[0] is Kind.FILES
            backend.say(0, "done", None if file else "made")
        assert [job.answer for job in jobs] == ["made", "made"]


def test_the_one_who_takes_files_is_lost(tmp_path: Path) -> None:
    """Another one of its machine takes them, who waits for them as well."""
    backend = Scripted(3)
    backend.hosts = {0: "b", 1: "b", 2: "a"}
    with scripted(backend, tmp_path) as crew:
        digest, taken = "1" * 64, False
        (tmp_path / digest).write_bytes(b"tensor")
        jobs = [crew.ask(Kind.MEASURE, "0", worker=0), crew.ask(Kind.MEASURE, "1", worker=1)]
        for worker in range(2):
            backend.say(worker, "lacking", (digest,))
        moved(crew)
        assert (kinds(backend, 0), kinds(backend, 1)) == ([Kind.FILES], [])
        backend.away.add(0)
        backend.lose(0)
        for _ in range(20):
            moved(crew)
            for worker in range(3):
                if backend.asked[worker]:
                    asked = backend.asked[worker][0]
                    taken |= asked.kind is Kind.FILES
                    there = worker == 2 or taken
                    backend.say(worker, "done" if there else "lacking", "made" if there else (digest,))
        assert [job.answer for job in jobs] == ["made", "made"]


def test_the_world_does_not_open_again(tmp_path: Path) -> None:
    """A worker that comes anew and cannot open it is given up, with a line; without any other one the run ends."""
    answers: Iterator[Answer | None] = iter(
        [None, None, *[Answer(0, "error", pickle.dumps(CheckpointError("a.pt is not there any more")))] * 2]
    )
    backend = Scripted(2, lambda worker: next(answers))
    with scripted(backend, tmp_path) as crew:
        crew.ask(Kind.MEASURE, 1, worker=0)
        backend.lose(0)
        moved(crew)
        assert crew.there == [1]
        assert kinds(backend, 1) == [Kind.MEASURE]
        backend.lose(1)
        with pytest.raises(WorkersError, match="no worker can be started"):
            moved(crew)


def test_the_only_one_comes_back_elsewhere(tmp_path: Path) -> None:
    """On a machine with other bits it is left out; when nobody else is there the run ends."""
    other = Answer(0, "done", pickle.dumps({"fingerprint": replace(ALIKE, device="another")}))
    answers: Iterator[Answer | None] = iter([None, other])
    backend = Scripted(1, lambda worker: next(answers))
    with scripted(backend, tmp_path) as crew:
        crew.ask(Kind.MEASURE, 1)
        backend.lose(0)
        with pytest.raises(WorkersError, match="no worker can be started"):
            moved(crew)


def test_a_request_for_one_who_has_nowhere_to_be(tmp_path: Path) -> None:
    """Whoever is there makes it."""
    backend = Scripted(2)
    with scripted(backend, tmp_path) as crew:
        backend.away.add(0)
        backend.lose(0)
        moved(crew)
        job = crew.ask(Kind.PART, 1, worker=0)
        assert kinds(backend, 1) == [Kind.PART]
        backend.say(1, "done", "made")
        assert crew.wait(job, lambda: False) == "made"


def test_a_look_that_was_dropped_is_not_waited_for(tmp_path: Path) -> None:
    """It is asked anew, though its worker has not said yet that it has left it."""
    backend = Scripted(1)
    with scripted(backend, tmp_path) as crew:
        ahead = Ahead(crew)
        ahead.announce([Look(key="one", what="model")], 0)
        moved(crew)
        job = ahead.job("one")
        assert isinstance(job, Job)
        crew.drop([job])
        assert ahead.job("one") is None

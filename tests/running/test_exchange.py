"""The folder through which a run's workers exchange files: nobody else's is touched, and none is left over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from merging.errors import FolderError, WorkersError
from merging.optimizers.random import Random
from merging.partitioners.layer import Layer
from merging.plugins.watcher import Watcher
from merging.running import crew
from merging.running.plan import Plan, plan
from merging.storage.atomic import new_folder
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.testing.fixtures import tiny_pool, tiny_task
from tests.evaluation.workers.in_turns import InTurns


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return tiny_pool(tmp_path / "pool", 2)


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(crew, "_backend", lambda asked, numerics: InTurns(1))


def planned(pool: ModelPool, workers: int | None) -> Plan:
    return plan(pool, Best(), partitioner=Layer(), optimizer=Random(), task=tiny_task(), device="cpu", workers=workers)


@pytest.mark.parametrize("workers", [1, None])
def test_what_a_killed_run_has_left_is_removed_with_workers_and_without(
    pool: ModelPool, tmp_path: Path, workers: int | None
) -> None:
    left, other = new_folder(tmp_path, "out-workers"), new_folder(tmp_path, "another-workers")
    with crew.hired(planned(pool, workers), tmp_path / "out", Watcher()):
        assert not left.exists()
    assert other.exists()
    other.rmdir()
    assert not list(tmp_path.glob(".*"))


def test_what_a_living_run_has_stays(pool: ModelPool, tmp_path: Path) -> None:
    with crew.hired(planned(pool, 1), tmp_path / "out", Watcher()):
        (its,) = tmp_path.glob(".*-out-workers")
        for workers in (1, None):
            with crew.hired(planned(pool, workers), tmp_path / "out", Watcher()):
                assert its.exists()
        assert list(tmp_path.glob(".*-out-workers")) == [its]
    assert not its.exists()


def test_what_a_killed_program_that_writes_nothing_has_left_is_removed(pool: ModelPool, tmp_path: Path) -> None:
    with crew.hired(planned(pool, 1), None, Watcher()):
        (its,) = tmp_path.glob("temporary/**/.*-workers")
    its.mkdir()
    with crew.hired(planned(pool, 1), None, Watcher()):
        assert not its.exists()
    assert not list(tmp_path.glob("temporary/**/.*"))


def test_workers_that_are_refused_leave_nothing(
    pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(asked: object, numerics: object) -> InTurns:
        raise WorkersError("no Ray can be reached")

    monkeypatch.setattr(crew, "_backend", refused)
    with (
        pytest.raises(WorkersError, match="no Ray"),
        crew.hired(planned(pool, 1), tmp_path / "new" / "out", Watcher()),
    ):
        pass
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_to_is_a_line(pool: ModelPool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FolderError, match="workers have nowhere to exchange files"),
        crew.hired(planned(pool, 1), tmp_path / "file" / "out", Watcher()),
    ):
        pass

"""What a journal has been told is on the disk: at once where a search goes on from it, soon otherwise."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import FolderError
from merging.storage.journal import FILE, Journal

EVENTS = st.sampled_from(
    [
        ("run", {}),
        ("strategy", {"name": "x"}),
        ("decision", {"accepted": True}),
        ("decision", {"accepted": False}),
        ("decision", {"alpha": 0.5}),
        ("stopped", {}),
        ("finished", {}),
    ]
)


@pytest.fixture(scope="module")
def synced() -> Iterator[dict[str, int]]:
    """Name of a file → its length when it was synced last; the syncs are real."""
    real, found = os.fsync, dict[str, int]()

    def watched(handle: int) -> None:
        length = os.fstat(handle).st_size
        real(handle)
        found[os.readlink(f"/proc/self/fd/{handle}")] = length

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", watched)
        yield found


@settings(max_examples=15)
@given(events=st.lists(EVENTS, min_size=1, max_size=6))
def test_what_a_search_goes_on_from_is_synced_before_it_does(
    events: list[tuple[str, dict[str, object]]], tmp_path_factory: pytest.TempPathFactory, synced: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("run").resolve() / FILE
    with Journal(path) as journal:
        for name, facts in events:
            journal.write(name, **facts)
            if name != "decision" or facts.get("accepted"):
                assert synced[str(path)] == path.stat().st_size
    assert synced[str(path)] == path.stat().st_size
    assert str(path.parent) in synced


def test_the_rest_is_synced_within_a_second(tmp_path: Path, synced: dict[str, int]) -> None:
    path = tmp_path.resolve() / FILE
    with Journal(path) as journal:
        for _ in range(2):
            journal.write("decision", accepted=False)
            assert synced.get(str(path), 0) < path.stat().st_size, "a search does not wait for it"
            began = time.monotonic()
            while synced.get(str(path), 0) < path.stat().st_size:
                assert time.monotonic() - began < 10, "half a second, and what a busy disk needs"
                time.sleep(0.01)


def test_a_full_disk_is_said_and_what_was_written_is_kept(tmp_path: Path) -> None:
    with Journal(tmp_path / FILE) as journal:
        journal.write("run")
        before = (tmp_path / FILE).read_bytes()
        assert journal._file is not None
        full = os.open("/dev/full", os.O_WRONLY)
        own = os.dup(journal._file.fileno())
        os.dup2(full, journal._file.fileno())
        with pytest.raises(FolderError, match=r"events.jsonl: No space left on device; what was found so far is kept"):
            journal.write("decision", accepted=True)
        os.dup2(own, journal._file.fileno())
    assert (tmp_path / FILE).read_bytes() == before

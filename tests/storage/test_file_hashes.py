"""A file's content hash is used again only where nothing about the file can have changed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merging.data.cache import content_of
from merging.errors import CheckpointError
from merging.storage import file_hashes
from merging.storage.checkpoint import Checkpoint
from merging.storage.file_hashes import REFUTED, Remembering, Stamp, digest_of, remembering
from merging.storage.pool import ModelPool
from merging.storage.user_cache import HASHES, SCORES, Shelf, cache_folder, clear, sweep, usage
from tests.conftest import TASK, Merge


@pytest.fixture(autouse=True)
def _remembering(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del own_cache
    monkeypatch.setenv("MERGING_REMEMBER", "1")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now counts as left alone long enough: nobody can set a ctime."""
    monkeypatch.setattr(file_hashes, "SETTLED", 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({"a": torch.arange(1000.0), "b": torch.ones(3)}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


class Reader:
    """Reads a file for its hash, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def digest(self, *how: str, verify: bool = False) -> str:
        def make() -> str:
            self.times += 1
            return content_hash_of(self.path)

        with remembering(Remembering(verify=verify)):
            return digest_of([Stamp.of(self.path)], how, make).hash


def content_hash_of(path: Path) -> str:
    from blake3 import blake3

    return blake3(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(model: Path) -> None:
    reader = Reader(model)
    assert reader.digest() == reader.digest() == content_hash_of(model)
    assert reader.times == 1
    reader.digest("another state dict in it")
    assert reader.times == 2


def test_a_file_that_was_just_written_is_read_each_time(model: Path) -> None:
    reader = Reader(model)
    assert reader.digest() == reader.digest()
    assert reader.times == 2
    assert usage()[HASHES] == (0, 0)


@pytest.mark.slow
def test_two_seconds_later_it_is_read_once(model: Path) -> None:
    reader = Reader(model)
    time.sleep(2.1)
    assert reader.digest() == reader.digest()
    assert reader.times == 1


@pytest.mark.usefixtures("settled")
def test_times_that_lie_ahead_are_believed_by_nobody(model: Path) -> None:
    reader, ahead = Reader(model), time.time() + 3600
    os.utime(model, (ahead, ahead))
    reader.digest()
    reader.digest()
    assert reader.times == 2


def rewritten(path: Path) -> Path:
    """Other bytes, as many, in the same file, with its old time: what a careless tool leaves."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    return path


def replaced(path: Path) -> Path:
    """Another file under the same name, size and time."""
    state = path.stat()
    other = path.with_name("other")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(other, path)
    return path


def linked(path: Path) -> Path:
    os.link(path, path.with_name("link"))
    return path.with_name("link")


def restored(path: Path) -> Path:
    """A copy with all times that a program can set, as tar and rsync restore them."""
    return Path(shutil.copy2(path, path.with_name("restored")))


def touched(path: Path) -> Path:
    path.touch()
    return path


CHANGES: dict[str, Callable[[Path], Path]] = {
    "rewritten": rewritten,
    "replaced": replaced,
    "a hard link": linked,
    "restored": restored,
    "touched": touched,
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", CHANGES)
def test_whatever_may_have_changed_a_file_has_it_read_again(how: str, model: Path) -> None:
    Reader(model).digest()
    time.sleep(0.02)  # the clock of file systems goes in steps
    reader = Reader(CHANGES[how](model))
    assert reader.digest() == content_hash_of(reader.path)
    assert reader.times == 1


@pytest.mark.usefixtures("settled")
def test_a_symbolic_link_is_the_file_that_it_leads_to(model: Path) -> None:
    Reader(model).digest()
    link = model.with_name("link")
    link.symlink_to(model)
    reader = Reader(link)
    assert reader.digest() == content_hash_of(model)
    assert reader.times == 0
    other = model.with_name("other")
    other.write_bytes(b"x" * 100)
    link.unlink()
    link.symlink_to(other)
    assert reader.digest() == content_hash_of(other)


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(model: Path) -> None:
    def make() -> str:
        found = content_hash_of(model)
        time.sleep(0.02)
        rewritten(model)
        return found

    digest_of([Stamp.of(model)], [], make)
    assert usage()[HASHES] == (0, 0)


@pytest.mark.usefixtures("settled")
def test_a_file_that_changed_since_it_was_opened_is_not_looked_up(model: Path) -> None:
    """What was opened is what is hashed: the name may lead to another file by now."""
    opened = Checkpoint(model)
    before = opened.hash
    late = Checkpoint(model)
    time.sleep(0.02)
    replaced(model)
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        _ = late.hash
    assert before
    assert Checkpoint(model).hash != before


@pytest.mark.usefixtures("settled")
def test_shards_and_keys_have_hashes_of_their_own(tmp_path: Path) -> None:
    state = {"a": torch.ones(4), "b": torch.zeros(4)}
    torch.save({"model": state, "ema": {n: t + 1 for n, t in state.items()}}, tmp_path / "two.pt")
    hashes = [Checkpoint(tmp_path / "two.pt", key=key).hash for key in ("model", "ema", "model", "ema")]
    assert hashes[0] == hashes[2] != hashes[1] == hashes[3]
    folder = tmp_path / "sharded"
    folder.mkdir()
    for number, name in enumerate(state, 1):
        save_file({name: state[name]}, folder / f"model-0000{number}-of-00002.safetensors")
    weights = {name: f"model-0000{n}-of-00002.safetensors" for n, name in enumerate(state, 1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert Checkpoint(folder).hash == Checkpoint(folder).hash == hashes[0]
    time.sleep(0.02)
    save_file({"b": torch.full((4,), 2.0)}, folder / "model-00002-of-00002.safetensors")
    assert Checkpoint(folder).hash != hashes[0]


@pytest.mark.usefixtures("settled")
def test_infinite_values_are_refused_each_time(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, float("inf")])}, tmp_path / "m.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            _ = Checkpoint(tmp_path / "m.safetensors").hash


def lie(path: Path, told: str) -> None:
    """Has another hash be remembered of a file, as if it had changed behind the file system's back."""
    for entry in (cache_folder() / HASHES).rglob("*"):
        if entry.is_file():
            Shelf(HASHES).put(entry.parent.name + entry.name, told.encode())
    assert Checkpoint(path).hash == told


@pytest.mark.usefixtures("settled")
def test_verify_proves_a_hash_and_drops_what_was_wrong(model: Path) -> None:
    true, wrong = Checkpoint(model).hash, "ab" * 32
    lie(model, wrong)
    Shelf(SCORES).put("c" * 32, b'{"decided": "%s"}' % wrong.encode())
    Shelf(SCORES).put("d" * 32, b'{"decided": "%s"}' % true.encode())
    with remembering(Remembering(verify=True)):
        proved = Checkpoint(model)
        assert proved.hash == true
    assert proved.notes == (f"m.safetensors {REFUTED}",)
    assert Shelf(SCORES).get("c" * 32) is None
    assert Shelf(SCORES).get("d" * 32) is not None
    again = Checkpoint(model)
    assert (again.hash, again.notes) == (true, ())


@pytest.mark.usefixtures("settled")
def test_a_pool_reads_on_threads_as_it_was_told(tmp_path: Path) -> None:
    for number in range(3):
        save_file({"a": torch.full((3,), float(number))}, tmp_path / f"m{number}.safetensors")
    with remembering(Remembering(remember=False)):
        _ = ModelPool.open([tmp_path / "*.safetensors"]).ingredients
    assert usage()[HASHES] == (0, 0)
    _ = ModelPool.open([tmp_path / "*.safetensors"]).ingredients
    assert usage()[HASHES][0] == 3


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("check", marks=pytest.mark.slow),
        "run",
        pytest.param("benchmark", marks=pytest.mark.slow),
        "inspect",
        "evaluate",
    ],
)
def test_verify_says_what_was_wrong(command: str, merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(pool_folder, tmp_path / "pool")
    first = tmp_path / "pool" / "model_0.safetensors"
    true = Checkpoint(first).hash
    lie(first, "ab" * 32)
    how = ["--models", str(tmp_path / "pool" / "model_*.safetensors")]
    if command == "evaluate":
        how = [str(first)]
    elif command == "run":
        how += ["--strategy", "uniform", "--no-tests", "--output", "out"]
    elif command == "benchmark":
        how += ["--strategies", "uniform", "--output", "out"]
    ran = merge(command, *how, "--task", TASK, "--verify")
    assert ran.code == 0, ran.err
    said = " ".join((ran.out + ran.err).split())
    assert "does not hold what was remembered of it" in said
    assert Checkpoint(first).hash == true


@pytest.mark.usefixtures("settled")
def test_a_merge_of_a_file_with_a_wrong_hash_is_not_written(merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    """What goes into a result is hashed while it is read."""
    shutil.copytree(pool_folder, tmp_path / "pool")
    _ = Checkpoint(tmp_path / "pool" / "model_0.safetensors").hash
    lie(tmp_path / "pool" / "model_0.safetensors", "ab" * 32)
    how = ("--models", str(tmp_path / "pool" / "model_*.safetensors"), "--task", TASK)
    ran = merge("run", *how, "--strategy", "uniform", "--output", "out")
    assert ran.code == 2
    assert "does not hold what was remembered of it" in ran.err
    again = merge("run", *how, "--strategy", "uniform", "--output", "out", "--overwrite")
    assert again.code == 0, again.err


@pytest.mark.usefixtures("settled")
def test_files_of_data_are_read_again_as_well(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"a" * 1000)
    first = content_of(path)
    time.sleep(0.02)
    assert content_of(rewritten(path)) == content_hash_of(path) != first


def test_what_was_used_longest_ago_goes_first() -> None:
    shelf = Shelf(SCORES)
    for number in range(8):
        shelf.put(f"{number}" * 32, b"x" * 5000)
        os.utime(shelf.place(f"{number}" * 32), (1000 + number, 1000 + number))
    assert shelf.get("0" * 32) is not None  # used: now it is the latest
    sweep(21_000)
    assert [number for number in range(8) if shelf.get(f"{number}" * 32) is not None] == [0, 5, 6, 7]
    assert sum(size for _, size in usage().values()) <= 21_000


def test_the_limit_holds_while_entries_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGING_CACHE_LIMIT", "100KB")
    shelf = Shelf(SCORES)
    for number in range(60):
        shelf.put(f"{number:032x}", b"x" * 5000)
    assert usage()[SCORES][1] <= 110_000
    assert shelf.get(f"{59:032x}") is not None


def test_what_a_killed_process_has_left_goes_with_the_next_sweep(own_cache: Path) -> None:
    Shelf(SCORES).put("a" * 32, b"x")
    old = own_cache / SCORES / "aa" / ".writing-0123"
    young = own_cache / SCORES / "aa" / ".writing-4567"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    sweep()
    assert not old.exists()
    assert young.exists()
    assert Shelf(SCORES).get("a" * 32) == b"x"


def test_who_has_no_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that is no user's."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("MERGING_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    shelf = Shelf(SCORES)
    shelf.put("0123456789", b"content")
    assert shelf.get("0123456789") is None
    clear()
    assert usage() == {SCORES: (0, 0), HASHES: (0, 0)}


def test_clearing_and_writing_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
    shelf, stop = Shelf(SCORES), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shelf.put(f"{number % 97:08x}"[::-1], b"content")

    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(write) for _ in range(2)]
        try:
            for _ in range(200):
                clear()
        finally:
            stop.set()
        assert [each.result() for each in writing] == [None, None]
    clear()
    assert usage()[SCORES] == (0, 0)

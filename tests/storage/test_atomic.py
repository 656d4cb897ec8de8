"""What is written is whole or not there, and the umask alone decides who may read it."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import FolderError
from merging.storage import atomic
from merging.storage import folder as folders
from merging.storage.journal import FILE, Journal
from merging.storage.lock import NAME, Lock
from tests.conftest import Merge
from tests.killed import killed_at

NAMES = [
    "model.safetensors",
    "model.pt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "recipe.json",
    "overrides.safetensors",
    "README.md",
    "config.json",
    "tokenizer.json",
    "members/1",
    "members/2",
    "ensemble.json",
]
DESCRIBING = {"report.json", "README.md", "recipe.json", "ensemble.json", "model.safetensors.index.json"}


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_are_the_umasks(umask: int, tmp_path: Path) -> None:
    atomic.write(tmp_path / "text", "ü")
    atomic.put(tmp_path / "put", b"")
    with atomic.replacing(tmp_path / "m.safetensors") as aside:
        atomic.save_safetensors(aside, {"a": torch.ones(2)})
    atomic.save_safetensors(tmp_path / "direct.safetensors", {"a": torch.ones(2)})
    secret = tmp_path / "secret"
    secret.touch(0o600)
    atomic.copy(secret, tmp_path / "copied")
    secret.unlink()
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("text", "put", "m.safetensors", "direct.safetensors", "copied"), 0o666 & ~umask
    )
    assert (tmp_path / "text").read_bytes() == "ü".encode()
    assert mode(atomic.new_folder(tmp_path)) == 0o777 & ~umask


def test_every_file_of_a_run_and_of_apply_has_the_umasks_mode(umask: int, merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--output", "out").code == 0
    assert merge("apply", "out", "--output", "again").code == 0
    assert merge("apply", "out", "--output", "one.safetensors").code == 0
    made = [*Path("out").rglob("*"), *Path("again").rglob("*"), Path("one.safetensors")]
    assert {path.name: mode(path) for path in made} == {path.name: 0o666 & ~umask for path in made}
    assert mode(Path("out")) == mode(Path("again")) == 0o777 & ~umask


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    atomic.write(tmp_path / "file", "before")

    def fail() -> None:
        with atomic.replacing(tmp_path / "file") as aside:
            aside.write_text("half of")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_names_are_nobody_elses(tmp_path: Path) -> None:
    made = {atomic.new_folder(tmp_path, "x" * 250) for _ in range(50)}
    assert len(made) == 50
    assert set(atomic.leftovers(tmp_path, "x" * 250)) == made
    assert atomic.leftovers(tmp_path, "x" * 99) == []


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    left = atomic.new_folder(tmp_path)
    (left / "half").touch()
    with Lock(tmp_path):
        assert not left.exists()
        with pytest.raises(FolderError, match="another run is writing"):
            Lock(tmp_path)
        with Lock(tmp_path / "file", beside=True):
            pass
    assert list(tmp_path.iterdir()) == []
    assert killed_at(1, lambda: (Lock(tmp_path), os.mkdir(tmp_path / "x")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    with Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_is_used_again_refuses_nothing(merge: Merge, tiny: list[str]) -> None:
    """In a container every run has the same number, and a killed one leaves what it was writing."""
    Path("out").mkdir()
    (Path("out") / f".writing-{os.getpid()}").mkdir()
    assert merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out").code == 0
    assert not list(Path("out").glob(".*"))


def publish(folder: Path, names: set[str], tag: str) -> None:
    """What a run does at its end, with files that say whose they are."""
    with Lock(folder), folders.writing(folder) as aside:
        for name in names:
            if name.startswith("members/"):
                (aside / name).mkdir(parents=True)
                name += "/model.safetensors"
            atomic.put(aside / name, tag)
        if "ensemble.json" in names:
            members = [{"folder": name} for name in names if name.startswith("members/")]
            (aside / "ensemble.json").write_text(json.dumps({"members": members, "tag": tag}))
        files = sorted({name.partition("/")[0] for name in names} | {"report.json"})
        atomic.put(aside / "report.json", json.dumps({"files": files, "tag": tag}))


def found(folder: Path) -> dict[str, str]:
    """Path → whose it is."""
    tags = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(".") and name != FILE:
            text = path.read_text()
            tags[name] = json.loads(text)["tag"] if text.startswith("{") else text
    return tags


SETS = st.sets(st.sampled_from(NAMES), min_size=1, max_size=7).map(
    lambda names: names | ({"ensemble.json"} if any(n.startswith("members/") for n in names) else set())
)


MEMORY = Path("/dev/shm")  # noqa: S108 (many small files, none of which need survive)


@pytest.mark.slow
@settings(max_examples=8)
@given(old=SETS, new=SETS)
def test_killed_anywhere_while_replacing(old: set[str], new: set[str]) -> None:
    """No description beside something else than it describes; and the next run finds everything that must go."""
    number, killed = 0, True
    while killed:
        number += 1
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
            folder = Path(name)
            with Journal(folder / FILE) as journal:
                journal.write("run")
            publish(folder, old, "old")
            whole = found(folder)
            killed = killed_at(number, lambda folder=folder: publish(folder, new, "new"), folder)  # type: ignore[misc]
            there = found(folder)
            described = {tag for name, tag in there.items() if name in DESCRIBING}
            assert len(described) <= 1
            assert not described or set(there.values()) == described
            if "report.json" in there:
                listed = set(json.loads((folder / "report.json").read_text())["files"])
                assert {name.partition("/")[0] for name in there} == listed
            if there.get("report.json") == "old":
                assert there == whole
            publish(folder, {"model.safetensors"}, "third")
            assert found(folder) == {"model.safetensors": "third", "report.json": "third"}
            assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.parametrize("share", [None, "events"])
def test_begun_anew_over_a_finished_run_and_killed(
    share: str | None, merge: Merge, tiny: list[str], tmp_path: Path
) -> None:
    """An `--overwrite` that ended after its claim: the old result is whole, and the same command works again."""
    flags = [*tiny, "--strategy", "uniform", "--no-tests", "--output", "out"]
    assert merge(*flags).code == 0
    before = (tmp_path / "out/model.safetensors").read_bytes()
    with folders.claim(tmp_path / "out", overwrite=True) as journal:
        if share:
            journal.write("run")
    assert (tmp_path / "out/model.safetensors").read_bytes() == before
    assert merge(*flags, "--overwrite").code == 0
    assert merge("apply", "out", "--output", "again.safetensors").code == 0


def test_two_runs_in_one_second_have_two_folders(
    merge: Merge, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *given: "20261126-120000")
    for _ in range(3):
        assert merge(*tiny, "--strategy", "uniform", "--no-tests").code == 0
    names = ["20261126-120000-2-uniform", "20261126-120000-3-uniform", "20261126-120000-uniform"]
    assert sorted(path.name for path in Path("runs").iterdir()) == names
    assert merge(*tiny, "--strategy", "../unknown").code == 2
    assert sorted(path.name for path in Path("runs").iterdir()) == names


def test_a_mistake_leaves_no_folder_behind(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "unknown").code == 2
    assert not Path("runs").exists()


def test_a_second_apply_is_refused_while_one_writes(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out").code == 0
    for output in ("one.safetensors", "one"):
        with Lock(Path(output).absolute(), beside=True):
            ran = merge("apply", "out", "--output", output)
            assert (ran.code, ran.err.count("\n")) == (2, 1)
            assert "another run is writing" in ran.err
        assert merge("apply", "out", "--output", output).code == 0
    Path("empty").mkdir()
    with Lock(Path("empty")):
        assert merge("apply", "out", "--output", "empty").code == 2
    assert merge("apply", "out", "--output", "empty").code == 0
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]

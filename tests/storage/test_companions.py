"""A folder from strangers: what lies beside its weights goes into a result only where it is the model's own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import companions, copy_companion, read_companion, refusal
from merging.storage.model_folder import COMPANIONS, SMALL
from merging.storage.pool import ModelPool
from merging.storage.result import carry
from merging.testing import tiny_pool, tiny_task
from merging.training.start import Start
from tests.conftest import Merge
from tests.heard import Heard

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def umask() -> Iterator[int]:
    """The usual mask, so that the mode of a new file is 0644."""
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


def model(folder: Path, value: float = 0.0) -> Path:
    """A folder that is a model, with a configuration."""
    folder.mkdir(parents=True)
    save_file({"w": torch.full((3, 2), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def carried(folder: Path, into: Path) -> dict[str, bytes]:
    """What a merge copies from beside a model: name → content; all of it regular, with a new file's mode."""
    into.mkdir()
    carry(Checkpoint(folder), into, None)
    for file in into.iterdir():
        assert stat.S_IMODE(file.lstat().st_mode) == 0o644
        assert stat.S_ISREG(file.lstat().st_mode)
    return {file.name: file.read_bytes() for file in into.iterdir()}


def hub(root: Path, files: dict[str, bytes], *, shared: bool = False) -> Path:
    """A snapshot in the Hub's cache, all links; ``shared``: its blobs are links to the store of all repositories."""
    repository = root / "models--some--model"
    snapshot = repository / "snapshots" / ("ab" * 20)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        blob = repository / "blobs" / digest
        if shared:
            home = root / "blobs" / digest[:2]
            home.mkdir(parents=True, exist_ok=True)
            (home / digest).write_bytes(content)
            blob.symlink_to(os.path.relpath(home / digest, blob.parent))
        else:
            blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def _inside(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / name).write_bytes(name.encode())
    (folder / name).symlink_to(Path("own") / name)
    return name.encode()


def _regular(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).write_bytes(name.encode())
    return name.encode()


def _setuid(folder: Path, name: str, outside: Path) -> bytes | None:
    _regular(folder, name, outside)
    (folder / name).chmod(0o4755)
    return name.encode()


def _absolute(folder: Path, name: str, outside: Path) -> bytes | None:
    (folder / name).symlink_to((outside / "id_rsa").resolve())
    return None


def _climbing(folder: Path, name: str, outside: Path) -> bytes | None:
    (folder / name).symlink_to(os.path.relpath(outside / "id_rsa", folder))
    return None


def _by_a_folder(folder: Path, name: str, outside: Path) -> bytes | None:
    """Through a link inside the folder that leads out of it."""
    if not (folder / "door").is_symlink():
        (folder / "door").symlink_to(outside.resolve())
    (folder / name).symlink_to("door/id_rsa")
    return None


def _by_two_links(folder: Path, name: str, outside: Path) -> bytes | None:
    (folder / f".{name}").symlink_to((outside / "id_rsa").resolve())
    (folder / name).symlink_to(f".{name}")
    return None


def _hidden(folder: Path, name: str, outside: Path) -> bytes | None:
    """A clone's own configuration, with the token that it was made with."""
    del outside
    (folder / ".git").mkdir(exist_ok=True)
    (folder / ".git" / "config").write_bytes(SECRET)
    (folder / name).symlink_to(".git/config")
    return None


def _false_blob(folder: Path, name: str, outside: Path) -> bytes | None:
    """As in the Hub's cache, but the folder is no snapshot."""
    (folder / name).symlink_to(os.path.relpath(outside / "blobs" / "id_rsa", folder))
    return None


def _broken(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).symlink_to("nothing")
    return None


def _circle(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).symlink_to(name)
    return None


def _pipe(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    os.mkfifo(folder / name)
    return None


def _device(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).symlink_to("/dev/zero")
    return None


def _process(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).symlink_to("/proc/self/environ")
    return None


def _directory(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    (folder / name).mkdir()
    return None


def _large(folder: Path, name: str, outside: Path) -> bytes | None:
    del outside
    with (folder / name).open("wb") as file:
        file.truncate(SMALL + 1)
    return None


LAYOUTS: list[Callable[[Path, str, Path], bytes | None]] = [
    _inside,
    _regular,
    _setuid,
    _absolute,
    _climbing,
    _by_a_folder,
    _by_two_links,
    _hidden,
    _false_blob,
    _broken,
    _circle,
    _pipe,
    _device,
    _process,
    _directory,
    _large,
]
UNKNOWN = st.sampled_from(
    [
        "modeling_x.py",
        "x.pyc",
        "weights.pkl",
        "state.pickle",
        "model.joblib",
        "run.sh",
        "x.so",
        "id_rsa",
        "credentials",
        "config.json.py",
        "tokenizer.json.bak",
        "TOKENIZER.JSON",
        "Makefile",
        "vocab.txt~",
        "events.out.tfevents",
        "a\x1b[31m",
    ]
)


@given(
    known=st.dictionaries(st.sampled_from([n for n in COMPANIONS if n != "config.json"]), st.sampled_from(LAYOUTS)),
    unknown=st.dictionaries(UNKNOWN, st.sampled_from([layout for layout in LAYOUTS if layout is not _directory])),
)
def test_only_known_names_that_stay_inside_are_carried(
    known: dict[str, Callable[[Path, str, Path], bytes | None]],
    unknown: dict[str, Callable[[Path, str, Path], bytes | None]],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "home" / "blobs").mkdir(parents=True)
        for secret in ("id_rsa", "blobs/id_rsa"):
            (root / "home" / secret).write_bytes(SECRET)
        folder = model(root / "model")
        expected = {"config.json": (folder / "config.json").read_bytes()}
        for name, layout in known.items():
            content = layout(folder, name, root / "home")
            expected |= {name: content} if content is not None else {}
        for name, layout in unknown.items():
            layout(folder, name, root / "home")
        assert carried(folder, root / "out") == expected
        left_out = dict(companions(folder).left_out)
        assert set(left_out) == {*known, *unknown} - set(expected)
        assert all(left_out.values())
        said = str(companions(folder))
        assert said.isprintable()
        assert all(repr(name)[1:-1] in said for name in sorted(left_out)[:8])


@pytest.mark.parametrize("shared", [False, True])
def test_the_hub_cache_is_read_and_nothing_outside_of_it(tmp_path: Path, shared: bool) -> None:
    source = model(tmp_path / "source")
    files = {name: (source / name).read_bytes() for name in ("config.json", "model.safetensors")}
    files |= {"tokenizer.json": b"{}", "x.py": b"import os"}
    snapshot = hub(tmp_path / "hub", files, shared=shared)
    (tmp_path / "id_rsa").write_bytes(SECRET)
    (snapshot / "vocab.txt").symlink_to("../../../../id_rsa")
    (snapshot / "merges.txt").symlink_to("../../refs")
    assert carried(snapshot, tmp_path / "out") == {name: files[name] for name in ("config.json", "tokenizer.json")}
    by_file = Checkpoint(snapshot / "model.safetensors")
    assert [file.name for file in by_file.extras] == ["config.json", "tokenizer.json"]
    assert dict(companions(snapshot).left_out) == {
        "merges.txt": "a link out of the folder",
        "vocab.txt": "a link out of the folder",
        "x.py": "code",
    }


def test_blobs_that_are_a_link_elsewhere_are_no_hub_cache(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    snapshot = hub(tmp_path / "hub", {name: (source / name).read_bytes() for name in ("config.json",)})
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id_rsa").write_bytes(SECRET)
    other = tmp_path / "stranger" / "snapshots" / "main"
    other.mkdir(parents=True)
    (tmp_path / "stranger" / "blobs").symlink_to(tmp_path / "home")
    (other / "vocab.txt").symlink_to("../../blobs/id_rsa")
    assert refusal(other / "vocab.txt") == "a link out of the folder"
    assert refusal(snapshot / "config.json") == ""
    (snapshot / "vocab.txt").symlink_to(tmp_path / "home" / "id_rsa")
    assert refusal(snapshot / "vocab.txt") == "a link out of the folder"


def test_a_stranger_s_folder_through_the_command_line(merge: Merge, tmp_path: Path) -> None:
    first, second = model(tmp_path / "m" / "a", 1.0), model(tmp_path / "m" / "b", 2.0)
    (tmp_path / "id_rsa").write_bytes(SECRET)
    for folder in (first, second):
        (folder / "special_tokens_map.json").write_text("{}")
        (folder / "special_tokens_map.json").chmod(0o4755)
    (first / "tokenizer.json").symlink_to(tmp_path / "id_rsa")
    (first / "vocab.txt").symlink_to("/proc/self/environ")
    (first / "modeling_x.py").write_text("import os")
    (first / "weights.pkl").write_bytes(b"\x80\x04.")
    line = (
        "beside a, left out of the result: modeling_x.py (code), tokenizer.json (a link out of the folder), vocab.txt "
        "(a link out of the folder), weights.pkl (a pickle)"
    )
    for kind in ("safetensors", "pt"):
        out = tmp_path / f"out-{kind}"
        ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "m", "--format", kind, "--output", out)
        assert ran.code == 0, ran.err
        assert sorted(file.name for file in out.iterdir()) == [
            "README.md",
            "config.json",
            "events.jsonl",
            f"model.{kind}",
            "recipe.json",
            "report.json",
            "special_tokens_map.json",
        ]
        assert stat.S_IMODE((out / "special_tokens_map.json").stat().st_mode) == 0o644
        assert all(SECRET not in file.read_bytes() for file in out.iterdir())
        assert line in json.loads((out / "report.json").read_text())["notes"]
        assert line in (out / "README.md").read_text()
        assert line in " ".join(ran.out.split())
    again = merge("apply", tmp_path / "out-pt", "--output", tmp_path / "again")
    assert again.code == 0
    assert line in again.err
    assert sorted(file.name for file in (tmp_path / "again").iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
    ]
    for command in ("check", "inspect"):
        assert line in " ".join(merge(command, "--models", tmp_path / "m").out.split())


def test_a_pool_that_is_fine_tuned_takes_the_same(tmp_path: Path) -> None:
    tiny_pool(tmp_path / "tiny", models=1)
    folder = tmp_path / "start"
    folder.mkdir()
    (tmp_path / "tiny" / "base.safetensors").rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "config.json").chmod(0o4755)
    (folder / "code.py").write_text("import os")
    (folder / "vocab.txt").symlink_to("/etc/passwd")
    said = Heard()
    Start.of(tiny_task(), folder, "cpu").write(tmp_path / "pool", 0, 0, said)
    assert sorted(file.name for file in (tmp_path / "pool").iterdir()) == ["base.safetensors", "config.json"]
    assert stat.S_IMODE((tmp_path / "pool" / "config.json").stat().st_mode) == 0o644
    assert "beside the base, left out of the pool: code.py (code), vocab.txt (a link out of the folder)" in said.said


def test_a_file_that_is_exchanged_meanwhile_is_not_copied(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / "vocab.txt").write_text("a\n")
    files = Checkpoint(folder).extras
    (folder / "vocab.txt").unlink()
    (folder / "vocab.txt").symlink_to("/proc/self/environ")
    assert files == (folder / "config.json", folder / "vocab.txt")
    with pytest.raises(CheckpointError, match=r"vocab.txt: .*a link out of the folder"):
        copy_companion(folder / "vocab.txt", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(CheckpointError, match="not there"):
        read_companion(folder / "merges.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / "vocab.txt").write_text("a\n")
    (folder / "vocab.txt").chmod(0)
    assert dict(companions(folder).left_out) == {"vocab.txt": "cannot be read"}


def test_many_files_of_other_names_are_counted(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    for number in range(12):
        (folder / f"notes_{number:02}.md").write_text("")
    assert str(companions(folder)).endswith("notes_07.md (of no known name) and 4 more")
    assert ModelPool.open([folder]).beside == (f"beside m, left out of the result: {companions(folder)}",)

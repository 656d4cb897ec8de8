"""What a stranger's files may not do: run a program, ask whether they may, or reach a machine that nobody has named."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from merging.data.decoding import rgb
from merging.storage.adapter_names import NamesInFiles
from tests.conftest import TASK, Merge

ADAPTERS = Path(__file__).parents[1] / "storage/adapters"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\nshowpage\n%%EOF\n"
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.exec", "os.system")
_heard: list[list[Any]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard and event in WATCHED:
        line = arguments[0] if event == "socket.connect" else None
        if line is None or line.family != socket.AF_UNIX:
            _heard[-1].append((event, str(arguments)[:200]))


sys.addaudithook(_hook)  # which cannot be taken away again: it hears nothing while nobody listens


@pytest.fixture
def outside() -> Iterator[list[Any]]:
    """What this process asks of other machines, and the programs that it starts."""
    _heard.append(found := [])
    yield found
    _heard.pop()


def test_the_hook_hears_what_it_should(outside: list[Any]) -> None:
    with socket.socket() as line:
        line.connect_ex(("127.0.0.1", 9))
    assert [event for event, _ in outside] == ["socket.connect"]


def test_a_picture_that_is_a_program_is_not_run(outside: list[Any], tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(POSTSCRIPT)
    with pytest.raises(OSError, match="it is PostScript, a program"):
        rgb(tmp_path / "picture.jpg")
    assert not outside
    Image.open(tmp_path / "picture.jpg").close()  # Pillow takes it


def test_rows_of_a_saved_set_fetch_no_picture(outside: list[Any], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from merging.data.saved import plain_rows

    there = {"bytes": None, "path": "http://127.0.0.1:9/x.png"}
    as_stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"text": datasets.Value("string"), "image": as_stored})
    datasets.Dataset.from_dict({"text": ["a b"] * 2, "image": [there] * 2}, features=features).save_to_disk(tmp_path)
    said = json.loads((tmp_path / "dataset_info.json").read_text("utf-8"))
    said["features"]["image"] = {"_type": "Image"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(said), encoding="utf-8")
    outside.clear()
    rows, _ = plain_rows(str(tmp_path))
    assert rows == [{"text": "a b", "image": there}] * 2
    assert not outside
    with pytest.raises(FileNotFoundError, match=r"127\.0\.0\.1"):
        list(datasets.load_from_disk(str(tmp_path)))  # the library itself does


def test_an_adapters_base_runs_no_code_and_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = shutil.copytree(ADAPTERS / "bases/vit", tmp_path / "base")
    mark = tmp_path / "RAN"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nfrom transformers import ViTConfig\n"
    (folder / "theirs.py").write_text(f"{code}class T(ViTConfig):\n    model_type = 'theirs'\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.T"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    assert not NamesInFiles("an adapter", folder).modules.kinds
    assert not mark.exists()


def test_a_file_names_no_machine_without_consent(
    merge: Merge, outside: list[Any], pool_folder: Path, tmp_path: Path
) -> None:
    file = "[pool]\nmodels = ['{}']\n[run]\nworkers = '{}'\nstrategy = 'best'\n"
    arguments = ["run", "--task", TASK, "--output", "out"]
    for workers in ("ray:127.0.0.1:9", "2@ray:127.0.0.1:9"):
        Path("merge.toml").write_text(file.format(pool_folder / "model_*", workers), encoding="utf-8")
        ran = merge(*arguments)
        assert ran.code == 2
        assert f"wants to work with another machine (workers = {workers})" in " ".join(ran.err.split())
        assert not outside
        assert merge("check", "--task", TASK).code == 2, "which says what a run would"
        assert merge(*arguments, "--workers", "none").code == 0, "typed: the file's counts for nothing"
        shutil.rmtree("out")
    assert not [each for each in outside if "127.0.0.1" in each[1]]


def test_what_is_typed_is_consent(merge: Merge, outside: list[Any], pool_folder: Path) -> None:
    pytest.importorskip("ray", reason="ray comes with dev-full")
    arguments = ["run", "--models", pool_folder / "model_*", "--task", TASK, "--strategy", "best"]
    ran = merge(*arguments, "--workers", "ray:127.0.0.1:9")
    assert "no Ray can be reached at 127.0.0.1:9" in ran.err
    assert outside

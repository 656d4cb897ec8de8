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

import numpy as np
import pytest
from PIL import Image

from merging.data.decoding import rgb
from merging.data.npz import load_npz
from merging.data.tars import shards
from merging.errors import TaskError
from merging.storage.adapter_names import NamesInFiles
from tests.cli.test_hostile_names import HOSTILE, report
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


class Runs:
    """Makes a file, if anybody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_arrays_are_no_pickles(tmp_path: Path) -> None:
    made = np.array([Runs(tmp_path / "RAN")], dtype=object)
    np.savez(tmp_path / "data.npz", x_images=made, x_labels=made)
    with pytest.raises(TaskError, match="not image data"):
        load_npz(f"{tmp_path / 'data.npz'}:x")
    assert not (tmp_path / "RAN").exists()
    np.load(tmp_path / "data.npz", allow_pickle=True)["x_images"]
    assert (tmp_path / "RAN").exists(), "NumPy would have"


def test_tar_files_are_files(outside: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    with pytest.raises(TaskError, match="no such tar file"):
        shards(f"pipe:touch {tmp_path / 'RAN'} #.tar")
    assert not outside


def test_tags_of_a_configuration_make_no_object(merge: Merge, outside: list[Any]) -> None:
    Path("merge.yaml").write_text("merge_method: !!python/object/apply:os.system ['touch RAN']\n", encoding="utf-8")
    ran = merge("run", "merge.yaml", "--output", "out")
    assert ran.code == 2
    assert not Path("RAN").exists()
    assert not outside


def test_a_notebook_reads_names_as_text() -> None:
    shown = report(HOSTILE)._repr_html_()
    assert "alert(1)" in shown
    assert "<script>alert" not in shown


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
    with pytest.raises((FileNotFoundError, ImportError), match=r"127\.0\.0\.1|HTTPFileSystem"):
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


def test_a_chain_of_commands_reaches_nobody(
    merge: Merge, tiny: list[str], outside: list[Any], pool_folder: Path, tmp_path: Path
) -> None:
    """And starts nothing: what commands tell of this machine (uname) and compile is the libraries'."""
    models = ["--models", pool_folder / "model_*"]
    first = pool_folder / "model_0.safetensors"
    for arguments in (
        ["list"],
        ["describe", "greedy"],
        ["check", *tiny[1:]],
        ["inspect", *models],
        ["run", *tiny[1:], "--strategy", "greedy", "--output", "out"],
        ["run", *models, "--strategy", "uniform", "--output", "plain"],
        ["apply", "out", "--output", "again.safetensors"],
        ["evaluate", first, "out", "--task", TASK],
        ["benchmark", *tiny[1:], "--strategies", "best,uniform", "--output", "compared"],
        ["report", "compared", "--output", "pages"],
        ["runs"],
    ):
        ran = merge(*arguments)
        assert ran.code == 0, ran.err
    assert not [each for each in outside if each[0].startswith("socket") or "uname" not in each[1]]

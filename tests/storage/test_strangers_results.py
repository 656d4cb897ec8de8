"""Result folders that somebody else has made: what their files name elsewhere is not read, sent, removed or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import merging
from merging.benchmarking import memory
from merging.benchmarking.folder import withdraw
from merging.errors import FolderError, MergingError, RecipeError
from merging.looking.opened import open_model
from merging.storage.folder import writing
from merging.storage.hub.pushing import parcel
from merging.storage.journal import FILE, Journal
from merging.storage.lock import Lock
from merging.storage.result import read_ensemble, result_files
from tests.conftest import Merge
from tests.golden.test_golden import HERE, NEWEST

GOLDEN = HERE / NEWEST


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    """An ensemble's folder, and beside it a folder of somebody's own with a model in it."""
    shutil.copytree(GOLDEN / "ensemble" / "members" / "1", tmp_path / "mine" / "1")
    return Path(shutil.copytree(GOLDEN / "ensemble", tmp_path / "theirs"))


def change(path: Path, put: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    put(data)
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    ["../mine/1", "{mine}/1", "members/../../mine/1", "~", "", ".", "..", "members", "members\\1", "members/١", "a\0b"],
)
def test_members_lie_in_their_ensembles_folder(name: str, ensemble: Path, tmp_path: Path) -> None:
    name = name.replace("{mine}", str(tmp_path / "mine"))
    change(ensemble / "ensemble.json", lambda data: data["members"][0].update(folder=name))
    for read in (open_model, merging.load_run):
        with pytest.raises(RecipeError, match=r"ensemble\.json: its member '.* is no folder in members/") as caught:
            read(ensemble)
        assert len(str(caught.value).replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize("link", ["members/1", "members"])
def test_members_are_not_reached_by_links(link: str, ensemble: Path, tmp_path: Path) -> None:
    shutil.rmtree(ensemble / link)
    (ensemble / link).symlink_to(tmp_path / "mine" / ("1" if "/" in link else ""))
    with pytest.raises(RecipeError, match="no folder in members/"):
        read_ensemble(ensemble)
    with pytest.raises(FolderError, match="not there any more, but a link"):
        parcel(ensemble, "ours/x")
    with pytest.raises(FolderError, match=r"is a link|was not written by a run"), writing(ensemble) as aside:
        shutil.copytree(tmp_path / "mine" / "1", aside / "members" / "1")
    assert (tmp_path / "mine" / "1" / "model.safetensors").is_file()
    assert len(list((tmp_path / "mine").iterdir())) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", -1.0),
        ("weight", "1"),
        ("weight", True),
        ("weight", float("nan")),
        ("weight", 1e308),
        ("name", ["model_0"]),
        ("folder", 1),
    ],
)
def test_members_of_other_types_are_damage(field: str, value: Any, ensemble: Path) -> None:
    change(ensemble / "ensemble.json", lambda data: data["members"][0].update({field: value}))
    for read in (open_model, merging.load_run):
        with pytest.raises(RecipeError, match=r"ensemble\.json is damaged: "):
            read(ensemble)


def test_an_ensemble_of_nothing_is_damage(ensemble: Path) -> None:
    change(ensemble / "ensemble.json", lambda data: [each.update(weight=0) for each in data["members"]])
    with pytest.raises(RecipeError, match=r"ensemble\.json is damaged: .* all are zero"):
        read_ensemble(ensemble)
    change(ensemble / "ensemble.json", lambda data: data.update(members=[]))
    with pytest.raises(RecipeError, match=r"ensemble\.json is damaged: .* no members"):
        read_ensemble(ensemble)


def test_a_push_sends_what_the_run_has_written_alone(ensemble: Path, tmp_path: Path) -> None:
    (ensemble / "members" / "notes").mkdir()
    (ensemble / "members" / "notes" / "x").write_text("mine")
    outside = ["../mine/1/model.safetensors", str(tmp_path / "mine"), "", ".", "..", ".hidden", "a\\b", "a\0b", 3]
    change(ensemble / "report.json", lambda data: data["files"].extend([*outside, "README.md"]))
    sent = parcel(ensemble, "ours/x").files
    members = [f"members/{number}/model.safetensors" for number in range(1, 5)]
    assert sorted(sent) == sorted(["README.md", "ensemble.json", "report.json", *members])
    assert [path.relative_to(ensemble).as_posix() for path in result_files(ensemble)[1]] == members


@pytest.mark.parametrize("files", [None, 5, "report.json", {"report.json": 1}])
def test_files_of_other_types_are_damage(files: Any, ensemble: Path, merge: Merge) -> None:
    change(ensemble / "report.json", lambda data: data.update(files=files))
    ran = merge("push", "theirs", "ours/x", "--dry-run")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith("error: theirs/report.json is damaged: TypeError: files is ")


@pytest.mark.parametrize("ledger", ['{"files": 5, "members": []}', '{"files": [], "members": 5}', "[" * 10000])
def test_a_damaged_ledger_counts_for_nothing(ledger: str, tmp_path: Path) -> None:
    (tmp_path / ".replacing.json").write_text(ledger)
    (tmp_path / "own").write_text("mine")
    with writing(tmp_path) as aside:
        (aside / "report.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "report.json"]


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    """Neither a journal, whose torn last line would be cut off, nor the lock of a folder."""
    (tmp_path / "mine").write_text("one line without an end")
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, begin in ((FILE, lambda p: Journal(p, resume=True)), (memory.FILE, memory.Memory)):
        (folder / name).symlink_to(tmp_path / "mine")
        with pytest.raises(FolderError, match="is a link, and nothing is written through it"):
            begin(folder / name)
        (folder / name).unlink()
    (folder / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(FolderError, match="cannot write to"):
        Lock(folder)
    assert (tmp_path / "mine").read_text() == "one line without an end"
    assert not (tmp_path / "new").exists()


def test_a_link_to_the_folder_itself_is_as_good_as_it(ensemble: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ensemble)
    assert len(read_ensemble(tmp_path / "link")[1]) == 4
    assert parcel(tmp_path / "link", "ours/x").files == parcel(ensemble, "ours/x").files


def test_a_run_of_weights_has_a_lineage_that_is_read_once(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "weights", tmp_path / "weights"))
    text = (folder / "report.json").read_text(encoding="utf-8")
    (folder / "report.json").write_text(text.replace('"lineage"', '"lineage": [], "lineage"'), encoding="utf-8")
    with pytest.raises(MergingError, match="'lineage' stands twice in one object"):
        merging.load_run(folder)


def test_pictures_are_not_removed_through_a_link(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "forest.png").write_bytes(b"mine")
    (tmp_path / "theirs" / "pictures").symlink_to(tmp_path / "mine")
    withdraw(tmp_path / "theirs")
    assert (tmp_path / "mine" / "forest.png").is_file()

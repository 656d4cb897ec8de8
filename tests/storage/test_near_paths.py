"""An error for a path that is not there asks for the nearest one that is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from merging.errors import near_path
from tests.conftest import Merge

TASK = """[task]
model = "torchvision:resnet18"
classes = ["a", "b"]
size = 8
held_out = "images/tset"
test = "images/test"
"""

MISTYPED = {
    "a pattern of models": (["run", "runs/*/model_bset.pth.tar", "--task", "digits"], "runs/*/model_best.pth.tar"),
    "a model's file": (
        ["run", "runs/first/model_bset.pth.tar", "--task", "digits"],
        "runs/first/model_best.pth.tar",
    ),
    "a model's folder": (
        ["run", "runs/frist/model_best.pth.tar", "--task", "digits"],
        "runs/first/model_best.pth.tar",
    ),
    "a task's file": (["run", "runs/first/*.tar", "--task", "merg.toml"], "merge.toml"),
    "a model to score": (["evaluate", "runs/frist", "--task", "digits"], "runs/first"),
    "a data set": (["run", "runs/first/*.tar", "--task", "merge.toml"], "images/test"),
    "a run to go on with": (["run", "--resume", "runs/frist"], "runs/first"),
    "a recipe": (["apply", "runs/frist"], "runs/first"),
    "a report": (["report", "runs/frist"], "runs/first"),
    "runs to list": (["runs", "rnus"], "runs"),
    "a base": (["run", "runs/first/*.tar", "--task", "digits", "--base", "strat.pth"], "start.pth"),
    "a plug-in": (["run", "runs/first/*.tar", "--task", "digits", "--plugin", "min.py"], "mine.py"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models, a task of images, a base and a plug-in."""
    for name in ("runs/first/model_best.pth.tar", "start.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weight": torch.zeros(2, 2)}, tmp_path / name)
    for label in "ab":
        (tmp_path / "images" / "test" / label).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "test" / label / "0.png")
    (tmp_path / "merge.toml").write_text(TASK)
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("case", MISTYPED)
def test_a_mistyped_path_is_told_the_nearest(merge: Merge, case: str) -> None:
    typed, near = MISTYPED[case]
    ran = merge(*typed)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert (ran.code, len(errors)) == (2, 1), ran.err
    asked = errors[0].partition("; did you mean '")[2]
    assert asked.endswith("'?"), errors[0]
    assert Path(asked[:-2]) in (Path(near), Path.cwd() / near)


def test_what_is_there_or_near_nothing_is_told_none(home: Path) -> None:
    os.symlink("gone", home / "linked.pth")
    there = ("", "runs", "runs/*/*.tar")
    for path in (*there, "zzz", "zzz/*.pt", "zzz/**/a", "linked.pth", "a\0b", "x" * 5000, "~nobody0/a"):
        assert near_path(path) == "", path


def test_the_nearest_is_found_below_any_depth_and_in_other_folders(home: Path) -> None:
    assert near_path("runs/**/model_bset.pth.tar") == "; did you mean 'runs/**/model_best.pth.tar'?"
    assert near_path(home / "rnus" / "frist" / "zzz.pt") == f"; did you mean '{home}/runs/first'?"


def test_a_name_that_acts_is_shown_as_its_code(home: Path) -> None:
    save_file({"weight": torch.zeros(1)}, home / "model\x1b[2J.safetensors")
    said = near_path("modle.safetensors")
    assert said == r"; did you mean 'model\x1b[2J.safetensors'?"


def test_a_large_folder_is_not_read_to_its_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = list[str]()

    class Counted:
        """A listing that tells what was taken from it."""

        def __init__(self, place: Path) -> None:
            self.entries = real(place)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return (listed.append(entry.name) or entry for entry in self.entries)

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    for place in ("many", "more"):
        (home / place).mkdir()
        for number in range(1100):
            (home / place / f"{number}.pt").touch()
    real = os.scandir
    monkeypatch.setattr(os, "scandir", Counted)
    assert near_path("many/0_.pt").startswith("; did you mean 'many/")
    assert len(listed) == 1000
    near_path("**/far.safetensors")
    assert len(listed) <= 2000

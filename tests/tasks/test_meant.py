"""What stands for a task where one is taken: names, paths, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import merging
from merging.errors import MergingError, TaskError
from merging.plugins.task import Task
from merging.tasks.meant import task_of

MODULE = "from torch import nn\n\n\ndef model(classes=3):\n    return nn.Linear(4, classes)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merge.toml with data beside it, in another folder than the working one."""
    place = tmp_path / "there"
    place.mkdir()
    draw = np.random.default_rng(0)
    arrays = {"d_images": draw.integers(0, 255, (6, 4, 4, 3), np.uint8), "d_labels": np.arange(6) % 3}
    np.savez(place / "set.npz", **arrays)  # type: ignore[arg-type]
    (place / "meant_model.py").write_text(MODULE)
    (place / "merge.toml").write_text(
        '[task]\nmodel = "python:meant_model:model"\nheld_out = "set.npz:d"\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    )
    (place / "plain.toml").write_text('[task]\nname = "digits"\n[pool]\nmodels = ["x"]\n')
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return place


def test_a_merge_toml_is_a_task(folder: Path) -> None:
    for given in (folder / "plain.toml", str(folder / "plain.toml")):
        assert task_of(given).name == merging.load_task(given).name == "digits"


def test_code_that_a_file_names_is_not_run_unasked(folder: Path) -> None:
    for given in (folder / "merge.toml", folder, str(folder)):
        with pytest.raises(TaskError, match=r"wants to run code \(python:meant_model:model\); read it, then"):
            task_of(given)
        made = merging.load_task(given, trust_code=True)
        assert len(made.held_out) == 6


def test_a_table_is_a_task() -> None:
    assert task_of({"name": "digits"}).name == "digits"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("digit", "unknown task 'digit'; did you mean 'digits'?"),
        ("", "unknown task ''"),
        ("nowhere.toml", "nowhere.toml"),
        (Path("nowhere"), "nowhere"),
        ("python:nothing", "'python:nothing' is incomplete; write python:module:function"),
        ({}, "the table of a task needs a name, or a model and held_out data"),
        ({"modl": "x"}, "unknown key in the table of a task: 'modl'; did you mean 'model'?"),
        (
            {"name": "pacs", "source": ["photo"]},
            "key in the table of a task: 'source'; 'source' is an option of the task 'pacs': options = { source = … }",
        ),
        ({"name": "pacs", "data": "x", "options": {"data": "y"}}, "[task] says data twice, itself and in options"),
        (
            {"name": "pacs", "options": {"sources": ["photo"]}},
            "'sources' means nothing to the task 'pacs'; did you mean",
        ),
        ({"model": 3}, "the table of a task: model"),
        (3, "`task` is an int; give a Task"),
        (Task, "`task` is the class Task; give a Task"),
        (lambda: None, "`task` is a function; call it, and give what it returns"),
    ],
)
def test_what_stands_for_none_is_one_line(
    given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MergingError) as error:
        task_of(given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_options_are_for_registered_tasks() -> None:
    with pytest.raises(TaskError, match="size is for a registered task"):
        merging.load_task({"name": "digits"}, size=3)

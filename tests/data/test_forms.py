"""Which form reads a path, what is said where none does, and what a form of somebody else may do wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import merging
from merging.data.form import KEYS
from merging.data.images import Preparation
from merging.data.opening import load_data, open_data
from merging.errors import TaskError
from merging.plugins.registry import forms
from merging.testing.forms import TinyTexts
from tests.conftest import Merge


@dataclass(frozen=True)
class Counts(merging.DataForm):
    """As many samples as the file has bytes."""

    written: ClassVar[str] = "a .counts"
    suffixes: ClassVar[tuple[str, ...]] = (".counts",)

    def open(self, reader: merging.Reader) -> merging.Opened:
        count = len(Path(reader.path).read_bytes())
        images = torch.full((count, 20, 20, 3), 7, dtype=torch.uint8)
        return reader.samples(merging.Split.of(images, torch.arange(count) % 2), names=("a", "b"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "x.counts").write_bytes(b"12345")
    return str(tmp_path / "x.counts")


def test_a_form_of_ones_own_is_read_and_named(file: str) -> None:
    with pytest.raises(TaskError, match=r"no such data: '.*x\.counts'; write a folder of class folders"):
        load_data(file)
    forms.register("counts")(Counts)
    assert load_data(file).labels.tolist() == [0, 1, 0, 1, 0]
    assert load_data({"path": file, "map": {"a": "one", "b": "two"}}, classes=("two", "one")).labels.tolist() == [
        *(1, 0, 1, 0, 1)
    ]
    with pytest.raises(TaskError, match=r"python:module:function, or a \.counts"):
        load_data("/nowhere")
    with pytest.raises(TaskError, match="'border' means nothing"):
        load_data({"path": file, "border": 2})
    with pytest.raises(TaskError, match="no such texts"):
        open_data(file, TinyTexts(), Preparation())


def test_its_pictures_are_brought_to_the_models_size(file: str) -> None:
    forms.register("counts")(Counts)
    how = Preparation(merging.model_source("torchvision:squeezenet1_1").transform(64), arrays=True)
    assert load_data(file, how=how).inputs.shape == (5, 64, 64, 3)


def test_ranks(file: str) -> None:
    class Lower(Counts):
        rank: ClassVar[int] = 9

    class Same(Counts):
        pass

    forms.register("counts")(Counts)
    forms.register("lower")(Lower)
    assert len(load_data(file)) == 5
    forms.register("same")(Same)
    with pytest.raises(TaskError, match="is read by the forms counts and same"):
        load_data(file)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda reader: None, "returned None"),
        (lambda reader: {}["lost"], "reading it as 'counts' failed: KeyError: 'lost'"),
        (lambda reader: exit(3), "called sys.exit"),
    ],
)
def test_what_a_form_may_do_wrong(does: Any, said: str, file: str) -> None:
    class Wrong(Counts):
        def open(self, reader: merging.Reader) -> merging.Opened:
            return does(reader)  # type: ignore[no-any-return]

    forms.register("counts")(Wrong)
    with pytest.raises(merging.MergingError, match=said) as refused:
        load_data(file)
    assert "\n" not in str(refused.value)


# Keys of its own


@dataclass(frozen=True)
class Sheets(Counts):
    """Those bytes of the file that are ``sheet``, every ``step``-th."""

    sheet: str = merging.option("1", "the byte that counts")
    step: int = merging.option(1, "of those, one in so many", low=1, high=9)

    def open(self, reader: merging.Reader) -> merging.Opened:
        count = len(Path(reader.path).read_text("utf-8").replace("\n", "").split(self.sheet)[1:][:: self.step])
        images = torch.full((count, 20, 20, 3), 7, dtype=torch.uint8)
        return reader.samples(merging.Split.of(images, torch.arange(count) % 2), names=("a", "b"))


def test_keys_of_its_own_are_options(tmp_path: Path) -> None:
    (tmp_path / "x.counts").write_text("1 2 1 1 2 1 1")
    file = str(tmp_path / "x.counts")
    forms.register("counts")(Sheets)
    tables: dict[int, dict[str, Any]] = {5: {}, 2: {"sheet": "2"}, 3: {"step": 2}, 1: {"sheet": "2", "step": 2}}
    for count, table in tables.items():
        assert len(load_data({"path": file, **table})) == count
    (tmp_path / "x.jsonl").write_text('{"path": "x", "label": 0}')
    for table, said in (
        ({"step": 0}, "option 'step' of 'counts' is 0, but must be between 1 and 9"),
        ({"sheet": 2}, "option 'sheet' of 'counts' is 2, but must be a valid string"),
        ({"shet": "2"}, "unknown key in a data set: 'shet'; did you mean 'sheet'?"),
        ({"labl": "2"}, "unknown key in a data set: 'labl'; did you mean 'label'?"),
        ({"path": f"{tmp_path}/x.jsonl", "sheet": "2"}, "'sheet' means nothing to this kind of data"),
    ):
        with pytest.raises(merging.MergingError, match=said):
            load_data({"path": file, **table})


PLUGIN = """
from dataclasses import dataclass
from pathlib import Path
import torch
import merging
from merging.plugins.registry import forms

@forms.register("words")
@dataclass(frozen=True)
class Words(merging.DataForm):
    suffixes = (".words",)
    sheet: str = merging.option("one", "Which line.", choices=("one", "two"))

    def open(self, reader):
        line = Path(reader.path).read_text().splitlines()[("one", "two").index(self.sheet)]
        labels = torch.tensor([int(word) for word in line.split()])
        return reader.samples(merging.Split.of(torch.eye(3)[labels], labels))
"""
TASK_FILE = """
[task]
model = "python:three:model"
held_out = {{ path = "x.words", {} }}
[pool]
models = ["m.pt", "n.pt"]
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "words.py").write_text(PLUGIN)
    (tmp_path / "x.words").write_text("0 1 2\n0 1 2 1\n")
    (tmp_path / "three.py").write_text("from torch import nn\ndef model():\n    return nn.Linear(3, 3)\n")
    for name in ("m.pt", "n.pt"):
        torch.save({"weight": torch.eye(3), "bias": torch.zeros(3)}, name)
    return tmp_path


def test_merge_toml_takes_them(work: Path, merge: Merge) -> None:
    for said, samples in (('sheet = "two"', 4), ("map = {}", 3)):
        (work / "merge.toml").write_text(TASK_FILE.format(said))
        ran = merge("evaluate", "m.pt", "--plugin", "words.py", "--trust-code", "--json")
        assert ran.code == 0, ran.err
        assert f'"samples": {samples}' in ran.out
    for said, wrong in (
        ('sheet = "tow"', "did you mean 'two'"),
        ("sheet = 2026-01-01", "task.held_out.sheet: input was not a valid JSON value"),
        ('shet = "two"', r"unknown key in [task.held_out]: 'shet'; did you mean 'sheet'?"),
        ('grop = "two"', r"unknown key in [task.held_out]: 'grop'; did you mean 'group'?"),
        ("border = 'x'", "task.held_out.border: Input should be a valid integer"),
    ):
        (work / "merge.toml").write_text(TASK_FILE.format(said))
        ran = merge("evaluate", "m.pt", "--plugin", "words.py", "--trust-code")
        assert ran.code == 2
        assert wrong in " ".join(ran.err.split())


@given(st.data())
def test_a_key_with_a_slip_names_the_right_one(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([name for name in KEYS if len(name) > 3]))
    at = data.draw(st.integers(0, len(key) - 2))
    slip = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    if slip == key:
        return
    with pytest.raises(TaskError, match=rf"unknown key in a data set: '{slip}'; did you mean '{key}'"):
        load_data({"path": "x", slip: 1})

"""Which form reads a path, what is said where none does, and what a form of somebody else may do wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import merging
from merging.data.images import Preparation
from merging.data.opening import load_data, open_data
from merging.errors import TaskError
from merging.plugins.registry import forms
from merging.testing.forms import TinyTexts


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

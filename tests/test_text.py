"""Texts with labels: what is read, how it becomes token ids, and every mistake as one clear line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from merging.errors import TaskError
from merging.tasks.text import load_text


class Letters:
    """A source whose tokens are letters; 0 fills up."""

    spec = "letters"

    def __init__(self, classes: tuple[str, ...] | None = ("bad", "good")) -> None:
        self.classes = classes

    def tokenize(self, texts: Sequence[str], progress: object = None) -> Tensor:
        del progress
        rows = [torch.tensor([ord(letter) for letter in text]) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"text": "oh", "label": "good"},
        {"text": "no!", "label": "bad"},
        {"text": "x", "label": 1, "more": None},
    )
    path.write_text(path.read_text() + "\n")  # empty lines are none
    split = load_text(path, Letters())
    assert split.labels.tolist() == [1, 0, 1]
    assert split.inputs.tolist() == [[111, 104, 0], [110, 111, 33], [120, 0, 0]]
    assert load_text(path, Letters()).fingerprint == split.fingerprint


def test_csv_with_its_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffreview,stars\r\n"a, ""b""\nc",good\r\nd,0\r\n'.encode())
    split = load_text(path, Letters(), text="review", label="stars")
    assert split.labels.tolist() == [1, 0]
    assert "".join(map(chr, split.inputs[0].tolist())) == 'a, "b"\nc'
    (tmp_path / "a.tsv").write_text("text\tlabel\nd\tgood\n")
    assert load_text(tmp_path / "a.tsv", Letters()).labels.tolist() == [1]


def test_given_names_are_the_order_of_the_outputs(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a", "label": "2"}, {"text": "b", "label": "1"})
    assert load_text(path, Letters(), labels=["2", "1"]).labels.tolist() == [0, 1]  # names before numbers
    assert load_text(path, Letters(None)).labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a", "label": 0}\n{"text": \n', "line 2: not JSON"),
        ("[1]\n", "line 1: not a JSON object"),
        ('{"txt": "a", "label": 0}\n', "line 1: unknown column 'text'; did you mean 'txt'?"),
        ('{"text": "a"}\n', "line 1: unknown column 'label'; known: text"),
        ('{"text": 5, "label": 0}\n', "line 1: 'text' is 5, not a text"),
        ('{"text": null, "label": 0}\n', "line 1: 'text' is empty"),
        ('{"text": "a", "label": "god"}\n', "line 1: unknown label 'god'; did you mean 'good'?"),
        ('{"text": "a", "label": 2}\n', "line 1: label 2 is no class; they are numbered from 0 to 1"),
        ('{"text": "a", "label": -1}\n', "line 1: label -1 is no class"),
        ('{"text": "a", "label": 0.5}\n', "line 1: unknown label '0.5'"),
        ('{"text": "a", "label": true}\n', "line 1: unknown label 'True'"),
        ("", "holds no texts"),
    ],
)
def test_mistakes(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(TaskError) as caught:
        load_text(path, Letters())
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_need_an_order(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a", "label": "good"})
    with pytest.raises(TaskError, match=r"label 'good' is a name, but letters has only numbers; give their order"):
        load_text(path, Letters(None))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such data"):
        load_text(tmp_path / "a.jsonl", Letters())
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(TaskError, match=r"texts are read from \.jsonl, \.csv or \.tsv"):
        load_text(tmp_path / "a.txt", Letters())
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,0\n")
    with pytest.raises(TaskError, match="can't decode"):
        load_text(tmp_path / "a.csv", Letters())
    (tmp_path / "b.csv").write_text("text,label\na\n")
    with pytest.raises(TaskError, match=r"line 2: 'label' is empty"):
        load_text(tmp_path / "b.csv", Letters())

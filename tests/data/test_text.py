"""Texts with labels: what is read, how it becomes token ids, and every mistake as one clear line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

from merging.data.images import Preparation
from merging.data.opening import load_data
from merging.errors import TaskError
from merging.plugins.task import Split
from tests.heard import Heard

CLASSES = ("bad", "good")


class Letters:
    """A source whose tokens are letters, / between those of a pair; 0 fills up."""

    spec = "letters"

    def tokenize(self, texts: Sequence[str], progress: object = None, *, second: Sequence[str] | None = None) -> Tensor:
        del progress
        whole = texts if second is None else [f"{a}/{b}" for a, b in zip(texts, second, strict=True)]
        rows = [torch.tensor([ord(letter) for letter in text]) for text in whole]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def load(
    path: Path | str,
    outputs: Sequence[str] | None = CLASSES,
    *,
    labelled: bool = True,
    progress: Heard | None = None,
    **table: Any,
) -> Split:
    source: Any = Letters()
    how = Preparation()
    return load_data(
        {"path": str(path), **table}, source, how=how, classes=outputs, labelled=labelled, progress=progress
    )


def said(split: Split) -> list[str]:
    return ["".join(chr(letter) for letter in row if letter) for row in split.inputs.tolist()]


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"text": "oh", "label": "good"},
        {"text": "no!", "label": "bad"},
        {"text": "", "label": "good", "more": None},
    )
    path.write_text(path.read_text() + "\n")  # empty lines are none
    split = load(path)
    assert split.labels.tolist() == [1, 0, 1]
    assert split.inputs.tolist() == [[111, 104, 0], [110, 111, 33], [0, 0, 0]]
    assert load(path).fingerprint == split.fingerprint
    listed = tmp_path / "a.json"
    listed.write_text(json.dumps([json.loads(line) for line in path.read_text().splitlines() if line]))
    assert load(listed).fingerprint == split.fingerprint, "one list of objects is read, too"


def test_csv_with_its_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffreview,stars\r\n"a, ""b""\nc",good\r\nd,bad\r\n'.encode())
    split = load(path, text="review", label="stars")
    assert split.labels.tolist() == [1, 0]
    assert said(split)[0] == 'a, "b"\nc'
    (tmp_path / "a.tsv").write_text("text\tlabel\nd\tgood\n")
    assert load(tmp_path / "a.tsv").labels.tolist() == [1]


def test_labels_of_stars(tmp_path: Path) -> None:
    """Classes called 1 to 5: labels are their names, text or number, whichever of them occur."""
    stars = ["1", "2", "3", "4", "5"]
    for labels in (["2", "1"], [2, 1]):
        path = lines(tmp_path / "a.jsonl", *({"text": "a", "label": label} for label in labels))
        news = Heard()
        assert load(path, stars, progress=news).labels.tolist() == [1, 0]
        assert "labels are taken as the names of the classes" in news.said[-1]
        assert load(path, ["x", "y", "z"]).labels.tolist() == [2, 1]
        assert load(path, None).labels.tolist() == [2, 1]
        assert load(path, ["0", "1", "2"], progress=news).labels.tolist() == [2, 1]
        assert len(news.said) == 1, "names that count from 0 are no news"
        assert load(path, stars, classes=stars).labels.tolist() == [2, 1], "said to count from 0"
    (tmp_path / "a.csv").write_text("text,label\na,0\nb,4\n")
    with pytest.raises(TaskError, match=r"label 0 is none of the classes, whose names are numbers \(1 to 5\)"):
        load(tmp_path / "a.csv", stars)
    assert load(tmp_path / "a.csv", stars, classes=stars).labels.tolist() == [0, 4]
    with pytest.raises(TaskError, match=r"label 4 is out of range.*0 to 3\); are they counted from 1\?"):
        load(tmp_path / "a.csv", ["a", "b", "c", "d"])
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [5, 1]}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved", stars).labels.tolist() == [4, 0]


def test_pairs_and_texts_without_labels(tmp_path: Path) -> None:
    rows = [{"a": "one", "b": "1", "label": 0}, {"a": "two", "b": "2", "label": 1}]
    path = lines(tmp_path / "a.jsonl", *rows)
    assert said(load(path, text=["a", "b"])) == ["one/1", "two/2"]
    bare = load(lines(tmp_path / "b.jsonl", {"text": "x"}, {"text": "y"}), labelled=False)
    assert said(bare) == ["x", "y"]
    assert bare.labels.tolist() == [-1, -1]


def test_some_of_the_classes(tmp_path: Path) -> None:
    """As for images: maps to several, left out, restricted."""
    rows = [{"text": "a", "label": "great"}, {"text": "b", "label": "awful"}, {"text": "c", "label": "unclear"}]
    path, three = lines(tmp_path / "a.jsonl", *rows), ["bad", "fine", "good"]
    found = load(path, three, map={"great": ["fine", "good"], "awful": "bad", "unclear": []})
    assert said(found) == ["a", "b"]
    assert found.classes is not None
    assert [found.classes[label] for label in found.labels] == [(1, 2), (0,)]


def test_folders_of_datasets(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "other": datasets.Value("string"),
            "id": datasets.Value("int64"),
            "label": datasets.ClassLabel(names=["good", "bad"]),
        }
    )
    rows = {"sentence": ["up", "down"], "other": ["1", "2"], "id": [5, 6], "label": [0, 1]}
    whole = datasets.Dataset.from_dict(rows, kinds)
    whole.save_to_disk(tmp_path / "pairs")
    assert said(load(tmp_path / "pairs", text=["sentence", "other"])) == ["up/1", "down/2"]
    with pytest.raises(TaskError, match=r"which column holds the text\? there are several \(sentence, other\)"):
        load(tmp_path / "pairs")
    one = whole.remove_columns("other")
    datasets.DatasetDict({"train": one, "rest": one.select([1])}).save_to_disk(tmp_path / "parts")
    split = load(f"{tmp_path / 'parts'}:train")
    assert said(split) == ["up", "down"]
    assert split.labels.tolist() == [1, 0], "the data set's own names are looked up among the model's"
    assert said(load(f"{tmp_path / 'parts'}:rest", labelled=False)) == ["down"]
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "note": ["", ""], "label": ["good", "bad"]})
    named.save_to_disk(tmp_path / "named")
    assert load(tmp_path / "named").labels.tolist() == [1, 0]
    datasets.Dataset.from_dict({"text": ["a", None], "label": ["good", "bad"]}).save_to_disk(tmp_path / "holes")
    with pytest.raises(TaskError, match="row 1 has None in 'text', which is not a text"):
        load(tmp_path / "holes")
    with pytest.raises(TaskError, match="name one column, or two"):
        load(tmp_path / "named", text=["text", "note", "label"])
    with pytest.raises(TaskError, match=r"unknown column .*'txt'; did you mean 'text'"):
        load(tmp_path / "named", text="txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a", "label": 0}\n{"text": \n', "line 2 is no JSON"),
        ("[1]\n", "line 1 is no JSON object"),
        ('{"txt": "a", "label": 0}\n', "'text'; did you mean 'txt'?"),
        ('{"text": "a"}\n', "has no column 'label', and the model classifies texts"),
        ('{"text": 5, "label": 0}\n', "row 1 has 5 in 'text', which is not a text"),
        ('{"text": null, "label": 0}\n', "row 1 has no 'text'"),
        ('{"text": "a", "label": "god"}\n', "unknown class 'god'; did you mean 'good'?"),
        ('{"text": "a", "label": 2}\n', "label 2 is out of range; there are 2 classes (0 to 1)"),
        ('{"text": "a", "label": -1}\n', "label -1 is out of range"),
        ('{"text": "a", "label": 0.5}\n', "row 1 has the label 0.5"),
        ('{"text": "a", "label": true}\n{"text": "b", "label": 0}\n', "row 1 has the label True"),
        ("", "has no rows"),
    ],
)
def test_mistakes(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(TaskError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"a\.jsonl: No such file"):
        load(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(TaskError, match=r"a text model takes \.jsonl, \.csv or \.tsv, a folder of save_to_disk"):
        load(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,0\n")
    with pytest.raises(TaskError, match="is not UTF-8 text"):
        load(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text,label\na\n")
    with pytest.raises(TaskError, match="line 2 has not the 2 columns"):
        load(tmp_path / "b.csv")
    (tmp_path / "c.json").write_text('[{"text": "a"}, 3]')
    with pytest.raises(TaskError, match="row 2 is no JSON object"):
        load(tmp_path / "c.json")

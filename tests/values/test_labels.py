"""Labels that are numbers count, however they are written; what may be meant otherwise is asked or refused."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from merging.data.classes import Choice, in_order_of_text, labelling
from merging.data.opening import load_data
from merging.errors import TaskError
from merging.tasks.described import described_task
from merging.values.labels import indices, read, whole
from tests.data.test_data import write, write_tar
from tests.data.test_decoding import encoded
from tests.heard import Heard

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = 12
PICTURE = encoded(Image.new("RGB", (2, 2)))
NAMES = tuple(f"class {number}" for number in range(CLASSES))


def as_csv(folder: Path, labels: Sequence[Any]) -> str:
    write(folder / "x.png", PICTURE)
    (folder / "set.csv").write_text(
        "".join(f"{a},{b}\n" for a, b in [("path", "label"), *(("x.png", y) for y in labels)])
    )
    return str(folder / "set.csv")


def as_jsonl(folder: Path, labels: Sequence[Any]) -> str:
    write(folder / "x.png", PICTURE)
    (folder / "set.jsonl").write_text("".join(json.dumps({"path": "x.png", "label": label}) + "\n" for label in labels))
    return str(folder / "set.jsonl")


def as_saved(folder: Path, labels: Sequence[Any]) -> str:
    columns = {"image": [{"bytes": PICTURE, "path": None}] * len(labels), "label": list(labels)}
    data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    data.save_to_disk(folder / "saved")
    return str(folder / "saved")


def as_tar(folder: Path, labels: Sequence[Any]) -> str:
    members = []
    for number, label in enumerate(labels):
        members += [(f"{number:03}.png", PICTURE), (f"{number:03}.cls", str(label).encode())]
    write_tar(folder / "set.tar", members)
    return str(folder / "set.tar")


def as_json_in_tar(folder: Path, labels: Sequence[Any]) -> str:
    members = []
    for number, label in enumerate(labels):
        members += [(f"{number:03}.png", PICTURE), (f"{number:03}.json", json.dumps({"label": label}).encode())]
    write_tar(folder / "set.tar", members)
    return str(folder / "set.tar")


def as_npz(folder: Path, labels: Sequence[Any]) -> str:
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    np.savez(folder / "set.npz", x_images=images, x_labels=np.asarray(labels))
    return f"{folder / 'set.npz'}:x"


def one_hot(number: int) -> list[int]:
    return [int(each == number) for each in range(CLASSES)]


def shifted(number: int) -> str:
    """With an exponent, as programs write it."""
    return f"{number / 10}E1" if number % 10 else f"{number // 10}E+01" if number else "0E0"


TEXTS: dict[str, Callable[[int], str]] = {
    "3": str,
    "3.0": lambda k: f"{k}.0",
    "03": lambda k: f"{k:03d}",
    "3.000e+00": lambda k: f"{k:.18e}",
    "+3": lambda k: f"+{k}",
    " 3 ": lambda k: f" {k} ",
    "3.": lambda k: f"{k}.",
    "0.3E1": shifted,
}
VALUES: dict[str, Callable[[int], Any]] = {"int": int, "float": float, "one-hot": one_hot, "list of one": lambda k: [k]}
READERS = (as_csv, as_jsonl, as_saved, as_tar, as_json_in_tar, as_npz)
WRITTEN = [
    *((form, how, text) for form in READERS for how, text in TEXTS.items()),
    *((form, how, value) for form in READERS if form not in (as_csv, as_tar) for how, value in VALUES.items()),
]


@pytest.mark.parametrize(("form", "how", "as_written"), WRITTEN, ids=lambda each: each if isinstance(each, str) else "")
@pytest.mark.parametrize("classes", [None, NAMES], ids=["unnamed", "named"])
def test_numbers_count_however_they_are_written(
    form: Callable[[Path, Sequence[Any]], str],
    how: str,
    as_written: Callable[[int], Any],
    tmp_path: Path,
    classes: Sequence[str] | None,
) -> None:
    labels = [11, 0, 3, 10, 2, 2, 1]
    news = Heard()
    split = load_data(form(tmp_path, [as_written(label) for label in labels]), classes=classes, progress=news)
    assert split.labels.tolist() == labels, how
    assert split.classes is None
    assert news.said == []


@given(st.integers(-(10**6), 10**6), st.integers(0, 3), st.integers(0, 4), st.sampled_from(["", " "]), st.booleans())
def test_any_spelling_of_a_whole_number(number: int, zeros: int, point: int, space: str, exponent: bool) -> None:
    text = f"{'-' if number < 0 else ''}{'0' * zeros}{abs(number)}{'.' + '0' * (point - 1) if point else ''}"
    assert whole(space + text + space) == number
    assert whole(f"{number:.18e}") == number
    assert whole(float(number)) == whole(np.float32(number)) == number
    assert whole(f"{number}e{'+' if exponent else ''}03") == 1000 * number
    assert whole(f"{number}.25") is None
    assert whole(f"{number} x") is None


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=9), st.sampled_from("bBhHiIlLefdU"), st.sampled_from([0, 1, 2])
)
def test_arrays_of_any_kind(labels: list[int], kind: str, layout: int) -> None:
    if layout == 2 and kind != "U":
        given_ = np.eye(21)[labels].astype(kind)
    else:
        given_ = np.asarray(labels).astype(kind).reshape((-1, 1) if layout == 1 else -1)
    found = indices(given_, "x")
    assert found.dtype == np.int64
    assert found.tolist() == labels


@pytest.mark.parametrize("form", [as_jsonl, as_saved, as_json_in_tar, as_npz])
def test_true_and_false_are_one_and_zero_and_it_is_said(form: Any, tmp_path: Path) -> None:
    news = Heard()
    spec = form(tmp_path, [True, False, True])
    assert load_data(spec, progress=news).labels.tolist() == [1, 0, 1]
    assert news.said == [f"{spec}: labels are true and false: taken as 1 and 0"]


@pytest.mark.parametrize(
    ("form", "labels", "said"),
    [
        (as_csv, ["0", "0.5", "1"], "row 2 has the label '0.5'; write a name, or whole numbers"),
        (as_csv, ["0.5", "1.5"], "row 1 has the label '0.5'"),
        (as_csv, ["0", "nan"], "row 2 has the label 'nan', others are whole numbers"),
        (as_csv, ["None", "3.0"], "row 1 has the label 'None', others are whole numbers"),
        (as_csv, ["0", "1e300"], "row 2 has the label '1e300'"),
        (as_jsonl, [0, 1 << 64], "row 2 has the label 18446744073709551616"),
        (as_jsonl, [0, 0.5], "row 2 has the label 0.5"),
        (as_jsonl, [0, "cat"], "row 2 has the label 'cat', others are whole numbers"),
        (as_jsonl, [0, True], "row 2 has the label True"),
        (as_jsonl, [float("nan"), 1], "row 1 has the label nan"),
        (as_jsonl, [[0, 1], [1, 1]], r"row 2 has the label \[1, 1\]; a list is a row of zeros with a single one"),
        (as_jsonl, [[0, 1], [1, 0, 0]], r"row 2 has the label \[1, 0, 0\]; a list"),
        (as_saved, [0.0, 0.5], "row 1 of 'label' has the label 0.5"),
        (as_tar, ["1", "2.5"], "row 1 has the label '2.5'"),
        (as_tar, ["1", "NaN"], "sample '001' has the label 'NaN', others are whole numbers"),
        (as_json_in_tar, [1, 2.5], "sample '001' has the label 2.5"),
        (as_npz, [0.0, 0.5], "number 1 is 0.5; they must be class indices"),
        (as_npz, [0.0, float("nan")], "number 1 is nan"),
        (as_npz, [[0, 1], [1, 1]], r"labels are int64 of shape \[2, 2\]; they must be class indices"),
        (as_npz, ["a", "b"], "number 0 is 'a'; they must be class indices"),
    ],
)
def test_what_is_no_class_is_refused_with_its_place(form: Any, labels: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=said) as refused:
        load_data(form(tmp_path, labels))
    assert "\n" not in str(refused.value)


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    """Where the classes are called so: the very text first, then the number that it is."""
    for classes, labels, right in (
        (("1.0", "1.5", "2.0"), ["1.5", "2.0", "1.0"], [1, 2, 0]),
        (("01", "02", "03"), ["03", "01"], [2, 0]),
        (("1", "2", "3"), ["3.0", "1.0"], [2, 0]),
        (("3", "2", "1"), ["3", "1"], [0, 2]),
    ):
        assert load_data(as_csv(tmp_path, labels), classes=classes).labels.tolist() == right


@pytest.mark.parametrize("form", [as_csv, as_jsonl, as_saved, as_tar, as_npz])
@pytest.mark.parametrize("classes", [None, NAMES], ids=["unnamed", "named"])
def test_counted_from_one_is_asked_where_the_last_class_is_absent(
    form: Any, classes: Sequence[str] | None, tmp_path: Path
) -> None:
    news = Heard()
    spec = form(tmp_path, [1, 2, 5, 1])
    load_data(spec, classes=classes, progress=news)
    of = ", and there are 12 classes (0 to 11)" if classes else ""
    assert news.said == [f"warning: {spec}: the labels go from 1 to 5{of}; are they counted from 1?"]
    news = Heard()
    (tmp_path / "b").mkdir()
    load_data(form(tmp_path / "b", [0, 2, 5]), classes=classes, progress=news)
    assert news.said == []


def test_a_library_that_declares_classes_is_not_asked(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    columns = {"image": [{"bytes": PICTURE, "path": None}] * 2, "label": [1, 2]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    news = Heard()
    load_data(str(tmp_path / "saved"), progress=news)
    assert news.said == []


def test_counted_from_one_up_to_the_last_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"label 12 is out of range; .*are they counted from 1\?"):
        load_data(as_csv(tmp_path, [1, 12]), classes=NAMES)


@given(
    st.sets(st.integers(0, 130), min_size=2, max_size=30), st.sampled_from(["{}", "class {}", "c_{}", "{}.0", "a{}b"])
)
def test_numbers_in_the_order_of_text_are_said(numbers: set[int], how: str) -> None:
    names = sorted(how.format(number) for number in numbers)
    said = in_order_of_text("x", names)
    ordered = [how.format(number) for number in sorted(numbers)]
    if names == ordered:
        assert said is None
    else:
        first = next(index for index, name in enumerate(names) if name != ordered[index])
        assert f"label {first} is class '{names[first]}'" in (said or "")


def test_names_that_are_no_numbers_have_no_other_order() -> None:
    for names in (
        ["b", "a"],
        ["a1", "b0"],
        ["1a", "0b"],
        ["class 1", "class"],
        ["v1.2", "v1.1"],
        [],
        ["x"],
        ["01", "1"],
    ):
        assert in_order_of_text("x", names) is None


@pytest.mark.parametrize(
    ("names", "first", "odd"),
    [
        (["0-2", "3-9", "10-19", "20-29", "more than 70"], 1, "10-19"),
        ([*map(str, range(12)), "unknown"], 2, "10"),
        ([f"class {number}" for number in range(11)] + ["background"], 3, "class 10"),
        (["1,5", "2,5", "10,5"], 1, "10,5"),
    ],
)
def test_numbers_among_other_names_in_the_order_of_text_are_said(names: list[str], first: int, odd: str) -> None:
    assert f"label {first} is class '{odd}'" in (in_order_of_text("x", sorted(names)) or "")
    assert in_order_of_text("x", names) is None


def test_names_of_which_few_are_numbered_are_not_spoken_of() -> None:
    assert in_order_of_text("x", ["A10", "A9", "DC-10", "DC-3", "Fokker", "Spitfire", "Yak"]) is None
    assert in_order_of_text("x", ["v1.10", "v1.2", "v1.9"]) is None


def test_folders_that_are_numbers(tmp_path: Path) -> None:
    for number in range(CLASSES):
        write(tmp_path / "set" / str(number) / "x.png", PICTURE)
    table = {"model": "timm:test_resnet", "held_out": str(tmp_path / "set")}
    news = Heard()
    task = described_task(table, news)
    assert task.held_out.labels.tolist() == list(range(CLASSES))
    assert task.classes == tuple(sorted(map(str, range(CLASSES)))), "as ImageFolder has it"
    assert any("label 2 is class '10'" in line for line in news.said)
    news = Heard()
    task = described_task(table | {"classes": list(map(str, range(CLASSES)))}, news)
    assert sorted(task.held_out.labels.tolist()) == list(range(CLASSES))
    assert not any("order of text" in line for line in news.said)


ACCENTS = ("Ångström", "crème brûlée", "한국", "plain", "ﬀ")


@given(st.permutations(ACCENTS), st.sampled_from(["NFC", "NFD"]), st.sampled_from(["NFC", "NFD"]))
def test_names_are_compared_in_one_form(order: list[str], of_model: Any, of_set: Any) -> None:
    model = [unicodedata.normalize(of_model, name) for name in order]
    written = [unicodedata.normalize(of_set, name) for name in ACCENTS]
    for choice in (Choice(), Choice(classes=written), Choice(map={model[0]: model[0]})):
        found = labelling("x", written, written, model, choice, restrict=True)
        assert [found.labels[name] for name in written] == [order.index(name) for name in ACCENTS]
        assert found.groups is None
    found = labelling("x", ["it"], None, model, Choice(map={"it": written[1]}), restrict=False)
    assert found.labels["it"] == order.index(ACCENTS[1])


def test_folders_of_a_mac_are_found_in_the_file(tmp_path: Path) -> None:
    for name in ACCENTS:
        write(tmp_path / "set" / unicodedata.normalize("NFD", name) / "x.png", PICTURE)
    split = load_data(str(tmp_path / "set"), classes=[unicodedata.normalize("NFC", name) for name in ACCENTS])
    assert sorted(split.labels.tolist()) == list(range(len(ACCENTS)))


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "x.png", PICTURE)
    rows = [("path", "label"), ("a/x.png", "1"), ("b/x.png", "0")]
    plain = "".join(f"{path},{label}\n" for path, label in rows)
    contents = {
        "semicolons": plain.replace(",", ";").encode(),
        "UTF-16": plain.encode("utf-16"),
        "Windows": plain.replace("/", "\\").replace("\n", "\r\n").encode(),
        "spaces": plain.replace(",", ", ").encode(),
        "BOM": plain.encode("utf-8-sig"),
        "quotes": "".join(f'"{path}","{label}"\n' for path, label in rows).encode(),
    }
    for what, content in contents.items():
        (tmp_path / "t.csv").write_bytes(content)
        assert load_data(str(tmp_path / "t.csv")).labels.tolist() == [1, 0], what


def test_the_name_of_a_column_may_have_spaces(tmp_path: Path) -> None:
    write(tmp_path / "x.png", PICTURE)
    (tmp_path / "t.csv").write_text("path, my label\nx.png, 0\n")
    assert load_data({"path": str(tmp_path / "t.csv"), "label": "my label"}).labels.tolist() == [0]


FUNCTIONS = """
import numpy as np
import torch
from merging import Split
X = torch.zeros(3, 2)
def numbers(): return X, torch.tensor([0.5, 0.25, 1.0])
def vectors(): return X, np.eye(3)[[2, 0, 1]]
def split(): return Split.of(X, torch.tensor([0.5, 0.25, 1.0]))
def classes(): return X, np.array([2, 0, 1], np.uint8)
"""


def test_what_a_function_returns_may_be_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of a regression stay what they are, and are not cut to whole numbers."""
    (tmp_path / "label_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("numbers", "split"):
        assert load_data(f"python:label_functions:{name}").labels.equal(torch.tensor([0.5, 0.25, 1.0]))
    assert load_data("python:label_functions:vectors").labels.equal(torch.eye(3, dtype=torch.float64)[[2, 0, 1]])
    assert load_data("python:label_functions:classes").labels.tolist() == [2, 0, 1]


def test_places_are_asked_only_for_errors() -> None:
    assert read(["a", " b"], lambda _: pytest.fail("asked"), pytest.fail) == ["a", "b"]


@pytest.mark.parametrize("form", [as_csv, as_jsonl, as_tar, as_npz])
def test_labels_below_zero_are_refused(tmp_path: Path, form: Callable[[Path, Sequence[Any]], str]) -> None:
    """Also where nobody names the classes: -1 is what tools write for "no label"."""
    with pytest.raises(TaskError, match="label -1 is out of range; labels count from 0"):
        load_data(form(tmp_path, [-1, 0, 1]))


@pytest.mark.parametrize("odd", ["cat", "1_0", "²", "class 3"])
@pytest.mark.parametrize("form", [as_csv, as_tar])
def test_numbers_among_names_are_said(tmp_path: Path, odd: str, form: Callable[[Path, Sequence[Any]], str]) -> None:
    news = Heard()
    task = described_task(
        {"model": "timm:test_resnet", "size": "stored", "held_out": form(tmp_path, ["0", "10", odd, "2"])}, news
    )
    assert task.classes == tuple(sorted(["0", "10", "2", odd]))
    lines = [line.partition(": ")[2] for line in news.said if "names" in line]
    assert lines[0] == f"labels are numbers and names ('{odd}'): all are taken as names, in the order of text"
    assert not any("which are numbers" in line for line in lines)


@pytest.mark.parametrize("odd", ["inf", "-Infinity", "#N/A", "NaT", "1.#QNAN", "2,5", "3,0", "1,000"])
def test_what_is_no_class_among_numbers_is_refused(tmp_path: Path, odd: str) -> None:
    with pytest.raises(TaskError, match=r"row 2 has the label '.*'.*; write a name, or whole numbers throughout"):
        load_data(as_jsonl(tmp_path, ["0", odd, "1"]))


def test_decimal_commas_are_names_where_these_are_the_classes(tmp_path: Path) -> None:
    split = load_data(as_jsonl(tmp_path, ["0,5", "1,5"]), classes=["1,5", "0,5"])
    assert split.labels.tolist() == [1, 0]


def test_lists_written_as_text_are_lists(tmp_path: Path) -> None:
    rows = [json.dumps(one_hot(number)) for number in (3, 0, 11)]
    assert load_data(as_jsonl(tmp_path, rows)).labels.tolist() == [3, 0, 11]
    with pytest.raises(TaskError, match="a list is a row of zeros with a single one"):
        load_data(as_jsonl(tmp_path, ["[1, 1, 0]", "[0, 0, 1]"]))


def test_a_label_file_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    assert load_data(as_tar(tmp_path, ["\ufeff1", "\ufeff0"])).labels.tolist() == [1, 0]

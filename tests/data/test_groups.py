"""Groups of samples: a column names them, and they stay with their samples whatever is left out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from merging.data.classes import Labelling
from merging.data.groups import in_groups
from merging.data.opening import load_data
from merging.errors import TaskError
from merging.plugins.task import Split


def pictures(folder: Path, rows: list[tuple[str, str]], damaged: int | None = None) -> Path:
    """A table of images whose red says which row they are; one of them may be cut off."""
    folder.mkdir(exist_ok=True)
    with (folder / "set.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "background"])
        for number, row in enumerate(rows):
            name = folder / f"{number}.png"
            Image.new("RGB", (8, 8), (number, 0, 0)).save(name)
            if number == damaged:
                name.write_bytes(name.read_bytes()[:30])
            writer.writerow([name.name, *row])
    return folder / "set.csv"


def by_row(split: Split) -> dict[int, tuple[int, str]]:
    """Row of the table → label and group of the sample that came from it."""
    assert split.groups is not None
    names = [split.group_names[number] for number in split.groups]
    return dict(zip(split.inputs[:, 0, 0, 0].tolist(), zip(split.labels.tolist(), names, strict=True), strict=True))


ROWS = [("cat", "snow"), ("dog", "grass"), ("cat", "grass"), ("owl", "snow"), ("dog", "snow"), ("owl", "sand")]


def test_a_table_names_its_groups(tmp_path: Path) -> None:
    file = pictures(tmp_path / "set", ROWS)
    split = load_data({"path": str(file), "group": "background"})
    assert split.group_names == ("grass", "sand", "snow")
    names = ("cat", "dog", "owl")
    assert by_row(split) == {n: (names.index(label), group) for n, (label, group) in enumerate(ROWS)}
    plain = load_data(str(file))
    assert plain.groups is None
    assert plain.fingerprint != split.fingerprint
    assert torch.equal(plain.labels, split.labels)


@pytest.mark.parametrize("chosen", [["cat", "owl"], ["owl", "dog"], ["dog"]])
def test_groups_stay_with_their_samples_where_some_are_left_out(tmp_path: Path, chosen: list[str]) -> None:
    file = pictures(tmp_path / "set", ROWS, damaged=2)
    table = {
        "path": str(file),
        "group": "background",
        "corrupt": 0.5,
        "map": {name: [] for name in {"cat", "dog", "owl"} - {*chosen}},
    }
    split = load_data(table, classes=["cat", "dog", "owl"])
    wanted = {n: (label, group) for n, (label, group) in enumerate(ROWS) if label in chosen and n != 2}
    names = ["cat", "dog", "owl"]
    outputs = split.classes or tuple((number,) for number in range(3))
    assert {n: (names[outputs[label][0]], group) for n, (label, group) in by_row(split).items()} == wanted


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=30),
    wanted=st.sets(st.integers(0, 4), min_size=1),
)
def test_any_labels_and_groups_come_apart_again(rows: list[tuple[int, str, bool]], wanted: set[int]) -> None:
    """Whatever labels are chosen, renumbered, or lost while decoding."""
    labels, groups = [label for label, _, _ in rows], [group for _, group, _ in rows]
    numbered: dict[str | int, int] = {label: 10 - label for label in wanted}

    def decode(found: Labelling | None) -> Split:
        assert found is not None
        kept = [(n, found.labels[pair]) for n, pair in enumerate(listed) if pair in found.labels and not rows[n][2]]
        return Split.of(torch.tensor([n for n, _ in kept]), torch.tensor([label for _, label in kept]))

    listed, load = in_groups("set", list(labels), groups, decode)
    alive = [n for n, (label, _, lost) in enumerate(rows) if label in wanted and not lost]
    if not alive:
        return
    split = load(Labelling(numbered, None))
    assert split.groups is not None
    assert split.inputs.tolist() == alive
    assert split.labels.tolist() == [numbered[labels[n]] for n in alive]
    assert [split.group_names[number] for number in split.groups] == [groups[n] for n in alive]


def test_an_npz_holds_groups_beside_its_labels(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = range(4)
    arrays = {"test_images": images, "test_labels": np.array([0, 1, 1, 2]), "test_site": np.array(["a", "b", "a", "c"])}
    np.savez(tmp_path / "set.npz", **arrays)  # type: ignore[arg-type]
    place = f"{tmp_path / 'set.npz'}:test"
    assert by_row(load_data({"path": place, "group": "site"})) == {0: (0, "a"), 1: (1, "b"), 2: (1, "a"), 3: (2, "c")}
    with pytest.raises(TaskError, match="'test_sit'; did you mean 'test_site'"):
        load_data({"path": place, "group": "sit"})


def test_a_saved_data_set_names_its_groups(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pixels = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(4)]
    data = datasets.Dataset.from_dict({"image": pixels, "label": ["u", "v", "v", "u"], "hospital": [3, 1, 3, 1]})
    data.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    split = load_data({"path": str(tmp_path / "saved"), "group": "hospital"})
    assert by_row(split) == {0: (0, "3"), 1: (1, "1"), 2: (1, "3"), 3: (0, "1")}
    gap = datasets.Dataset.from_dict(
        {"image": pixels, "label": ["u", "v", "v", "u"], "hospital": ["x", "y", None, "z"]}
    )
    gap.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "gap")
    with pytest.raises(TaskError, match="row 2 has the group None"):  # counted from 0, as by the library and for labels
        load_data({"path": str(tmp_path / "gap"), "group": "hospital"})


def test_a_column_that_is_not_there_or_not_filled_is_said(tmp_path: Path) -> None:
    file = pictures(tmp_path / "set", ROWS)
    with pytest.raises(TaskError, match="'backgrund'; did you mean 'background'"):
        load_data({"path": str(file), "group": "backgrund"})
    file.write_text(file.read_text().replace(",sand", ","))
    with pytest.raises(TaskError, match="row 6 has no 'background'"):
        load_data({"path": str(file), "group": "background"})
    with pytest.raises(TaskError, match="'group' means nothing to this kind of data"):
        load_data({"path": str(tmp_path), "group": "background"})


def test_a_part_keeps_its_groups() -> None:
    split = Split.of(torch.arange(6), torch.arange(6) % 2).with_groups(["b", "a", "b", "c", "a", "b"])
    part = split.part(torch.tensor([5, 3, 0]))
    assert part.groups is not None
    assert [part.group_names[number] for number in part.groups] == ["b", "c", "b"]
    assert part.labels.tolist() == [1, 1, 0]
    with pytest.raises(TaskError, match="6 samples but 2 groups"):
        split.with_groups(["a", "b"])


def test_numbers_are_groups_however_they_are_written() -> None:
    """A column with gaps makes floats of numbers; a gap itself is no group."""

    def decode(found: Labelling | None) -> Split:
        assert found is not None
        return Split.of(torch.zeros(4, 1), torch.tensor([found.labels[pair] for pair in pairs]))

    pairs, load = in_groups("set", [0, 1, 0, 1], [1, 1.0, "1.0", "1.50"], decode)
    split = load(Labelling({0: 0, 1: 1}, None))
    assert split.group_names == ("1", "1.50")
    pairs, load = in_groups("set", [0, 1, 0, 1], ["caf\u00e9", "cafe\u0301", "b", "b"], decode)
    assert load(Labelling({0: 0, 1: 1}, None)).group_names == ("b", "caf\u00e9")
    for gap in (float("nan"), None, " "):
        for first in (0, 1):
            with pytest.raises(TaskError, match=f"set: row {first + 1} has the group"):
                in_groups("set", [0, 1], ["a", gap], decode, first=first)

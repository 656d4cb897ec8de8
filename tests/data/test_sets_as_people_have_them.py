"""The same held-out pictures as people have them: the right score, or a line that says what is wrong; never another."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from merging.errors import TaskError
from merging.looking.scoring import evaluate
from merging.tasks.described import described_task
from tests.conftest import Merge
from tests.data.test_decoding import encoded
from tests.heard import Heard

MODEL = """
import torch
from torch import nn
class Shades(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 12)
    def forward(self, x):
        left, right = x[..., : x.shape[-1] // 2].mean((1, 2, 3)), x[..., x.shape[-1] // 2 :].mean((1, 2, 3))
        return self.fc(torch.stack([left, right, left * 0, left * 0], 1))
"""
NAMES = [f"shade {letter}" for letter in "abcdefghijkl"]
PICTURES = [(number, part) for number in range(12) for part in range(4)]
"""Class, number within the class. The left half of a picture has the class's brightness, the right half is white."""


@pytest.fixture(autouse=True)
def bench(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shades.py").write_text(MODEL)
    centres = (torch.arange(12) + 0.5) / 12
    weight = torch.zeros(12, 4)
    weight[:, 0] = 200 * centres
    torch.save({"fc.weight": weight, "fc.bias": -100 * centres**2}, tmp_path / "model.pt")


def shade(number: int, part: int) -> np.ndarray:
    image = np.full((8, 8), 255, np.uint8)
    image[:, :4] = int((number + 0.5) / 12 * 255) + part - 2
    return image


def picture(number: int, part: int) -> Image.Image:
    return Image.fromarray(shade(number, part))


def folders(folder: Path) -> Path:
    for number, part in PICTURES:
        place = folder / NAMES[number] / f"{part}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(number, part).save(place)
    return folder


def links() -> str:
    """Class folders that hold links to folders of images."""
    store = folders(Path("store"))
    for name in NAMES:
        Path("set", name).mkdir(parents=True)
        shutil.copy(store / name / "0.png", Path("set", name))
        Path("moved", name).mkdir(parents=True)
        for part in (1, 2, 3):
            (store / name / f"{part}.png").rename(Path("moved", name, f"{part}.png"))
        Path("set", name, "more").symlink_to(Path("moved", name).absolute())
    return "set"


def sixteen() -> str:
    for number, part in PICTURES:
        Path("set", NAMES[number]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade(number, part).astype(np.uint16) * 257).save(Path("set", NAMES[number], f"{part}.png"))
    return "set"


def other_suffix(suffix: str, kind: str) -> Callable[[], str]:
    """Every second picture of another kind."""

    def make() -> str:
        folder = folders(Path("set"))
        for number, part in PICTURES:
            if part % 2:
                (folder / NAMES[number] / f"{part}.png").unlink()
                picture(number, part).save(folder / NAMES[number] / f"{part}{suffix}", kind)
        return "set"

    return make


def mac() -> str:
    folders(Path("set"))
    Path("set", NAMES[0], "._0.png").write_bytes(b"\0\5\26\7" + bytes(100))
    return "set"


def mac_beside() -> str:
    folders(Path("set"))
    Path("set/__MACOSX").mkdir()
    Path("set/__MACOSX/._0.png").write_bytes(b"\0\5\26\7" + bytes(100))
    return "set"


def empty_class() -> str:
    shutil.rmtree(folders(Path("set")) / NAMES[3])
    Path("set", NAMES[3]).mkdir()
    return "set"


def table(how: Callable[[int], str], separator: str = ",", encoding: str = "utf-8") -> Callable[[], str]:
    def make() -> str:
        folders(Path("pictures"))
        rows = [("path", "label"), *((f"pictures/{NAMES[n]}/{part}.png", how(n)) for n, part in PICTURES)]
        Path("set.csv").write_bytes("".join(separator.join(row) + "\n" for row in rows).encode(encoding))
        return "set.csv"

    return make


def few_from_one() -> str:
    """Counted from 1, and the last class absent."""
    folders(Path("pictures"))
    rows = [f"pictures/{NAMES[number]}/{part}.png,{number + 1}\n" for number, part in PICTURES if number < 11]
    Path("set.csv").write_text("path,label\n" + "".join(rows))
    return "set.csv"


def lines(how: Callable[[int], object]) -> Callable[[], str]:
    def make() -> str:
        folders(Path("pictures"))
        rows = [{"path": f"pictures/{NAMES[number]}/{part}.png", "label": how(number)} for number, part in PICTURES]
        Path("set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return "set.jsonl"

    return make


def dots() -> str:
    with tarfile.open("set.tar", "w") as tar:
        for number, part in PICTURES:
            for suffix, content in (("png", encoded(picture(number, part))), ("cls", str(number).encode())):
                entry = tarfile.TarInfo(f"img_{number}.{part}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return "set.tar"


def arrays(labels: Callable[[np.ndarray], np.ndarray]) -> Callable[[], str]:
    def make() -> str:
        images = np.stack([np.repeat(shade(*each)[..., None], 3, axis=2) for each in PICTURES])
        np.savez("set.npz", k_images=images, k_labels=labels(np.array([number for number, _ in PICTURES])))
        return "set.npz:k"

    return make


def turned(orientation: int) -> Callable[[], str]:
    """Photographs that a camera stored on their side, as a data set of ``datasets``, which hands them out upright."""

    def make() -> str:
        exif = Image.Exif()
        exif[274] = orientation
        back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
        contents = [encoded(picture(*each).convert("RGB").transpose(back), exif=exif) for each in PICTURES]
        columns = {
            "image": [{"bytes": content, "path": None} for content in contents],
            "label": [number for number, _ in PICTURES],
        }
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
        datasets.Dataset.from_dict(columns, features=features).save_to_disk("set")
        return "set"

    return make


RIGHT: dict[str, tuple[Callable[[], str], str]] = {
    "as it should be": (lambda: str(folders(Path("set"))), ""),
    "links": (links, ""),
    "16 bits": (sixteen, "set: 48 of 48 pictures have 16 bits a channel: scaled to 8"),
    ".jfif": (other_suffix(".jfif", "JPEG"), "set: 24 files of other kinds (.jfif) left out"),
    ".gif": (other_suffix(".gif", "GIF"), "set: 24 files of other kinds (.gif) left out"),
    "float.csv": (table(lambda k: f"{k}.0"), ""),
    "sci.csv": (table(lambda k: f"{k:.18e}"), ""),
    "padded.csv": (table(lambda k: f"{k:02d}"), ""),
    "quoted.csv": (table(lambda k: f'"{k}"'), ""),
    "space.csv": (table(lambda k: f" {k}", ", "), ""),
    "semi.csv": (table(str, ";"), ""),
    "utf16.csv": (table(str, encoding="utf-16"), ""),
    "names.csv": (table(lambda k: NAMES[k]), ""),
    "strings.jsonl": (lines(str), ""),
    "floats.jsonl": (lines(float), ""),
    "onehot.jsonl": (lines(lambda k: [int(k == each) for each in range(12)]), ""),
    "column.npz": (arrays(lambda y: y[:, None]), ""),
    "onehot.npz": (arrays(lambda y: np.eye(12)[y]), ""),
    "float.npz": (arrays(lambda y: y.astype(np.float32)), ""),
    "uint8.npz": (arrays(lambda y: y.astype(np.uint8)), ""),
    "on the head": (turned(3), "set: 48 of 48 pictures have an EXIF orientation: turned upright"),
    "on the left": (turned(6), "set: 48 of 48 pictures have an EXIF orientation: turned upright"),
    "on the right": (turned(8), "set: 48 of 48 pictures have an EXIF orientation: turned upright"),
}
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "a Mac's files": (mac, r"\._0\.png is damaged \(it is no picture but what a Mac keeps"),
    "a Mac's folder": (mac_beside, "unknown class '__MACOSX'"),
    "an empty class": (empty_class, "no images of shade d "),
    "dots": (dots, "all behind a name's first dot is the suffix"),
    "one.csv": (table(lambda k: f"{k + 1}"), "label 12 is out of range; .* are they counted from 1"),
    "bool.csv": (table(lambda k: str(k % 2 == 0)), "unknown class '(True|False)'"),
}
PLAIN = {"model": "python:shades:Shades", "classes": NAMES, "mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_score_is_right_and_what_is_left_out_is_said(kind: str) -> None:
    make, said = RIGHT[kind]
    spec = make()
    for _ in range(2):
        news = Heard()
        task = described_task(PLAIN | {"held_out": spec}, news)
        assert len(task.held_out) == (24 if "left out" in said else 48)
        assert evaluate("model.pt", task, device="cpu")["held-out"].accuracy == 1.0
        assert [line[: len(said)] for line in news.said] == ([said] if said else [])


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line(kind: str) -> None:
    make, said = REFUSED[kind]
    with pytest.raises(TaskError, match=said) as refused:
        described_task(PLAIN | {"held_out": make()})
    assert "\n" not in str(refused.value)


def test_counted_from_one_is_asked_by_run_evaluate_and_check(merge: Merge) -> None:
    """The last class is absent, so every label is one that the model has."""
    spec = few_from_one()
    shutil.copy("model.pt", "other.pt")
    Path("merge.toml").write_text(
        f'[task]\nmodel = "python:shades:Shades"\nclasses = {json.dumps(NAMES)}\nmean = [0.0, 0.0, 0.0]\n'
        f'std = [1.0, 1.0, 1.0]\nheld_out = "{spec}"\n[pool]\nmodels = ["*.pt"]\n[run]\nstrategy = "greedy"\n'
    )
    for command in (["check"], ["run", "--output", "out"], ["evaluate", "model.pt"]):
        ran = merge(*command, "--trust-code")
        assert ran.code == 0, ran.err
        both = " ".join((ran.out + ran.err).split())
        assert "the labels go from 1 to 11, and there are 12 classes (0 to 11); are they counted from 1?" in both
        if command[0] != "evaluate":
            assert "is right on 0 of 44 held-out samples (0%), no better than a guess" in both


def test_folders_that_count_from_one_are_asked_for_their_names() -> None:
    for number, part in PICTURES:
        place = Path("set", str(number + 1), f"{part}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(number, part).save(place)
    news = Heard()
    task = described_task({key: value for key, value in PLAIN.items() if key != "classes"} | {"held_out": "set"}, news)
    assert task.classes[:3] == ("1", "10", "11")
    assert any("label 1 is class '10'; [task] classes" in line for line in news.said)
    given = described_task(PLAIN | {"held_out": "set", "classes": [str(k + 1) for k in range(12)]})
    assert evaluate("model.pt", given, device="cpu")["held-out"].accuracy == 1.0

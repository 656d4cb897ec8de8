"""Which files are a set's: torchvision's ``ImageFolder`` decides, and all that is left out is said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from merging.data.folders import SUFFIXES, listed, tree
from merging.data.opening import load_data
from merging.errors import TaskError
from tests.data.test_data import write, write_tar
from tests.data.test_decoding import encoded, pixels
from tests.heard import Heard

pytestmark = pytest.mark.usefixtures("own_cache")

PICTURE = encoded(Image.fromarray(pixels()))
NAMES = st.text("ab.-_ Zé0", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
KINDS = st.sampled_from([*SUFFIXES, ".JPG", ".Png", ".gif", ".jfif", ".txt", "", ".png.bak", ".tar.png"])
FILES = st.lists(st.tuples(st.lists(NAMES, max_size=2), NAMES, KINDS), max_size=5)


def test_the_suffixes_are_the_library_s() -> None:
    assert SUFFIXES == IMG_EXTENSIONS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(NAMES, FILES, max_size=4), st.dictionaries(NAMES, FILES, max_size=2), st.data())
def test_files_classes_and_labels_are_those_of_the_library(
    tmp_path_factory: pytest.TempPathFactory,
    classes: dict[str, list[tuple[list[str], str, str]]],
    stores: dict[str, list[tuple[list[str], str, str]]],
    data: st.DataObject,
) -> None:
    """Nested and hidden folders, hidden files, upper case, other suffixes, empty classes, links to folders."""
    base = tmp_path_factory.mktemp("tree")
    root = base / "set"
    root.mkdir()
    for place, content in ((root, classes), (base / "stores", stores)):
        for name, files in content.items():
            (place / name).mkdir(parents=True, exist_ok=True)
            for inner, file, suffix in files:
                path = place.joinpath(name, *inner, file + suffix)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a file is called as a folder is
                    continue
    for name in stores:
        holder = root / data.draw(st.sampled_from([*classes, "."]))
        link = holder / data.draw(NAMES)
        if not link.exists():
            link.symlink_to(base / "stores" / name)
    try:
        library = ImageFolder(str(root))
    except FileNotFoundError:
        with pytest.raises(TaskError, match="no images"):
            listed(root)
        return
    found = tree(root)
    assert list(found.classes) == library.classes
    assert [(str(path), label) for path, label in listed(root)] == library.samples
    inside = [Path(place, file) for place, _, files in os.walk(root, followlinks=True) for file in files]
    left_out = len([path for path in inside if path.parent != root]) - len(library.samples)
    assert sum(found.others.values()) == left_out


def spread(folder: Path, count: int = 6) -> Path:
    for number in range(count):
        write(folder / "set" / "ab"[number % 2] / f"{number}.png", encoded(Image.fromarray(pixels(seed=number))))
    return folder / "set"


def said_of(spec: object, **how: object) -> tuple[list[str], torch.Tensor]:
    news = Heard()
    return news.said, load_data(spec, progress=news, **how).labels  # type: ignore[arg-type]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    place = spread(tmp_path)
    (tmp_path / "store").mkdir()
    for number in range(5):
        write(tmp_path / "store" / f"{number}.png", PICTURE)
    (place / "a/more").symlink_to(tmp_path / "store")
    (place / "c").symlink_to(tmp_path / "store")
    said, labels = said_of(str(place))
    assert labels.bincount().tolist() == [8, 3, 5]
    assert said == []


def test_a_link_that_leads_back_is_not_followed_and_said(tmp_path: Path) -> None:
    place = spread(tmp_path)
    (place / "a/again").symlink_to(place / "a")
    (place / "b/up").symlink_to(place)
    said, labels = said_of(str(place))
    assert labels.bincount().tolist() == [3, 3]
    assert [line.partition(" leads back")[0].rpartition("/")[2] for line in said] == ["again", "up"]


def test_links_to_each_other_end(tmp_path: Path) -> None:
    """Each class holds a link to the next: a few of them would be listed until the system's limit, in every order."""
    place = spread(tmp_path)
    (place / "a/next").symlink_to(place / "b")
    (place / "b/next").symlink_to(place / "a")
    (tmp_path / "store").mkdir()
    write(tmp_path / "store/1.png", PICTURE)
    (tmp_path / "store/whole").symlink_to(place)
    (place / "b/store").symlink_to(tmp_path / "store")
    said, labels = said_of(str(place))
    assert labels.bincount().tolist() == [7, 7]
    assert sorted(line.partition(" leads back")[0].rpartition("set/")[2] for line in said) == [
        "a/next/next",
        "a/next/store/whole",
        "b/next/next",
        "b/store/whole",
    ]


def test_other_kinds_of_files_are_counted(tmp_path: Path) -> None:
    place = spread(tmp_path)
    for number in range(4):
        write(place / "a" / f"{number}.jfif", PICTURE)
    assert said_of(str(place))[0] == [f"{place}: 4 files of other kinds (.jfif) left out"]
    for name in ("Thumbs.db", ".DS_Store", "notes", "x.GIF", "y.gif"):
        write(place / "b/inner" / name, b"x")
    write(place / "alone.png", PICTURE)
    lines, labels = said_of(str(place))
    assert lines == [
        f"{place}: 9 files of other kinds (4 .jfif, 2 .gif, 1 .DS_Store, 1 .db, 1 no suffix) left out",
        f"{place}: 1 image that lies in no class folder left out",
    ]
    assert len(labels) == 6
    assert said_of(str(place), labelled=False)[0][0] == lines[0]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", ".cache"])
def test_hidden_folders_are_classes_and_said(name: str, tmp_path: Path) -> None:
    place = spread(tmp_path)
    write(place / name / "0.png", PICTURE)
    assert ImageFolder(str(place)).classes == [name, "a", "b"]
    said, labels = said_of(str(place))
    assert labels.bincount().tolist() == [1, 3, 3]
    assert f"warning: {place}: {name} counts as a class, as ImageFolder has it" in said[0]


def test_classes_without_an_image_are_refused(tmp_path: Path) -> None:
    place = spread(tmp_path)
    (place / "c").mkdir()
    write(place / "d/x.gif", b"x")
    with pytest.raises(FileNotFoundError, match="classes c, d"):
        ImageFolder(str(place))
    with pytest.raises(
        TaskError, match=r"no images of c, d .*convert their files, remove the folders, or say in the set's table"
    ):
        load_data(str(place))
    for choice in ("own", ["a", "b"]):
        assert said_of({"path": str(place), "classes": choice}, classes=["a", "b"])[1].bincount().tolist() == [3, 3]


def members(names: list[str]) -> list[tuple[str, bytes]]:
    return [(name, PICTURE if name.endswith(("g", "f", "F")) else b"1") for name in names]


def test_what_belongs_to_no_sample_of_a_tar_is_said(tmp_path: Path) -> None:
    names = [
        "a.png",
        "a.cls",
        "b.jfif",
        "b.cls",
        "c.GIF",
        "c.cls",
        "README",
        "notes.txt",
        "d.0.png",
        "e.jpg",
        "e.png",
        "e.cls",
        "__meta__",
        ".hidden",
    ]
    content = dict(members(names))
    content["b.jfif"] = content["e.jpg"] = encoded(Image.fromarray(pixels()), "JPEG")
    content["c.GIF"] = encoded(Image.fromarray(pixels()).convert("P"), "GIF")
    write_tar(tmp_path / "set.tar", list(content.items()))
    spec = str(tmp_path / "set.tar")
    for _ in range(2):
        said, labels = said_of(spec)
        assert len(labels) == 4
        assert said[:2] == [
            f"{spec}: 4 files of other kinds (2 no suffix, 1 .0.png, 1 .txt) left out",
            f"{spec}: 1 of 4 samples have several images: the first of .jpg, .jpeg, .png, .webp, … is taken",
        ]


def test_dots_in_the_names_of_a_tar_are_explained(tmp_path: Path) -> None:
    write_tar(tmp_path / "dots.tar", members(["img_0.0.png", "img_0.0.cls", "img_0.1.png", "img_0.1.cls"]))
    with pytest.raises(TaskError, match=r"holds no samples: .*all behind a name's first dot is the suffix: rename"):
        load_data(str(tmp_path / "dots.tar"))


def test_pictures_of_a_tar_are_those_of_its_library(tmp_path: Path) -> None:
    from webdataset.autodecode import imagehandler

    rng = np.random.default_rng(0)
    kinds = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP"), ("tif", "TIFF")]
    content = []
    for number, (suffix, kind) in enumerate(kinds):
        image = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        content += [
            (f"{number}.{suffix}", encoded(image.convert("P") if kind == "GIF" else image, kind)),
            (f"{number}.cls", b"0"),
        ]
    write_tar(tmp_path / "set.tar", content)
    split = load_data(str(tmp_path / "set.tar"))
    for row, (name, encoded_image) in zip(split.inputs, content[::2], strict=True):
        assert np.array_equal(row.numpy(), imagehandler("rgb8")(name, encoded_image))

"""Whatever a picture is stored as: its pixels, and what is said of it at every run."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps
from torchvision.datasets.folder import pil_loader

from merging.data.decoding import CMYK, DEEP, FRAMES, SAID, STORED, TRANSPARENT, TURNED, UnfitPicture, rgb, size_of
from merging.data.images import Preparation
from merging.data.opening import load_data
from merging.data.tars import IMAGES
from merging.errors import TaskError
from tests.data.test_data import write_tar
from tests.heard import Heard

pytestmark = pytest.mark.usefixtures("own_cache")

ORIENTATION = 274


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def pixels(height: int = 6, width: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def turned_photo(orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(Image.fromarray(pixels(seed=orientation)), kind, exif=exif)


def graymap(values: np.ndarray, highest: int) -> bytes:
    return f"P5 {values.shape[1]} {values.shape[0]} {highest}\n".encode() + values.astype(">u2").tobytes()


@given(
    arrays.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5))), st.sampled_from(["PNG", "TIFF", "PPM"])
)
def test_sixteen_bits_are_scaled(values: np.ndarray, kind: str) -> None:
    content = graymap(values, 65535) if kind == "PPM" else encoded(Image.fromarray(values), kind)
    image, changes = rgb(content)
    right = np.rint(values / 257).astype(np.uint8)
    assert changes == {DEEP}
    assert np.array_equal(np.asarray(image), np.repeat(right[..., None], 3, axis=2))


def test_other_depths_of_a_graymap_are_scaled_too() -> None:
    image, changes = rgb(graymap(np.array([[0, 1000, 500]]), 1000))
    assert changes == {DEEP}
    assert np.asarray(image)[0, :, 0].tolist() == [0, 255, 128]


def test_sixteen_bits_of_several_channels_are_said() -> None:
    """Pillow writes no such PNG; it keeps the upper eight bits of each channel, as it does for the libraries."""
    rows = (pixels().astype(">u2") * 257).astype(">u2").reshape(6, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    image, changes = rgb(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert changes == {DEEP}
    assert np.array_equal(np.asarray(image), pixels())


@pytest.mark.parametrize(
    "values",
    [np.array([[0, 0.5]], np.float32), np.array([[0, 1 << 20]], np.int32), np.array([[-1e9, 300]], np.float32)],
    ids=["0-1", "32 bits", "large"],
)
def test_numbers_without_a_range_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UnfitPicture, match="no fixed range; convert it to 8"):
        rgb(encoded(Image.fromarray(values), "TIFF"))
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/x.tif").write_bytes(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(TaskError, match=r"set: a/x\.tif: its pixels are .* numbers") as refused:
        load_data(str(tmp_path / "set"))
    assert "\n" not in str(refused.value)


def with_alpha(lowest: int) -> Image.Image:
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putpixel((0, 0), (*image.getpixel((0, 0))[:3], lowest))  # type: ignore[index]
    return image


def with_palette() -> Image.Image:
    return Image.fromarray(pixels()).convert("P")


MODES: dict[str, tuple[bytes, set[str]]] = {
    "RGB": (encoded(Image.fromarray(pixels())), set()),
    "L": (encoded(Image.fromarray(pixels()[..., 0])), set()),
    "1": (encoded(Image.fromarray(pixels()[..., 0]).convert("1")), set()),
    "P": (encoded(with_palette()), set()),
    "P transparent": (encoded(with_palette(), transparency=bytes([200] * 256)), {TRANSPARENT}),
    "P one transparent colour": (encoded(with_palette(), transparency=with_palette().getpixel((0, 0))), {TRANSPARENT}),
    "RGBA opaque": (encoded(with_alpha(255)), set()),
    "RGBA": (encoded(with_alpha(0)), {TRANSPARENT}),
    "LA": (encoded(with_alpha(3).convert("LA")), {TRANSPARENT}),
    "WebP": (encoded(with_alpha(0), "WEBP", lossless=True), {TRANSPARENT}),
    "CMYK": (encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG"), {CMYK}),
    "YCbCr": (encoded(Image.fromarray(pixels()).convert("YCbCr"), "JPEG"), set()),
    "GIF": (encoded(with_palette(), "GIF", save_all=True, append_images=[with_palette().rotate(180)]), {FRAMES}),
    "TIFF pages": (
        encoded(Image.fromarray(pixels()), "TIFF", save_all=True, append_images=[Image.fromarray(pixels(seed=1))]),
        {FRAMES},
    ),
    "APNG": (
        encoded(Image.fromarray(pixels()), save_all=True, append_images=[Image.fromarray(pixels(seed=1))]),
        {FRAMES},
    ),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_those_of_torchvision(mode: str, tmp_path: Path) -> None:
    content, kinds = MODES[mode]
    (tmp_path / "x").write_bytes(content)
    image, changes = rgb(content)
    assert np.array_equal(np.asarray(image), np.asarray(pil_loader(tmp_path / "x")))
    assert changes == kinds
    again, _ = rgb(tmp_path / "x")
    assert again.tobytes() == image.tobytes()


def test_nothing_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    for content, _ in MODES.values():
        rgb(content)
    assert not recwarn.list


def test_deep_pictures_of_other_makers() -> None:
    """Big-endian, and portable pixmaps."""
    values = np.array([[0, 257, 65535]], np.uint16)
    big = encoded(Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes()), "TIFF")
    pixmap = b"P6 1 1 65535\n" + np.array([0, 257, 65535], ">u2").tobytes()
    for content, row in ((big, [[0] * 3, [1] * 3, [255] * 3]), (pixmap, [[0, 1, 255]])):
        image, changes = rgb(content)
        assert np.asarray(image)[0].tolist() == row
        assert changes == {DEEP}


@given(st.integers(1, 8), st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF"]), st.booleans())
def test_orientation(orientation: int, kind: str, upright: bool) -> None:
    content = turned_photo(orientation, kind)
    image, changes = rgb(content, upright=upright)
    stored = Image.open(io.BytesIO(content))
    wanted = ImageOps.exif_transpose(stored) if upright else stored
    assert np.array_equal(np.asarray(image), np.asarray(wanted.convert("RGB")))
    assert size_of(content, upright=upright) == image.size
    said = {TURNED if upright else STORED} if orientation > 1 and kind != "TIFF" else set()  # Pillow turns TIFF itself
    assert changes == said


def as_folders(folder: Path, contents: list[bytes]) -> str:
    for number, content in enumerate(contents):
        place = folder / "set" / "ab"[number % 2] / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return str(folder / "set")


def as_table(folder: Path, contents: list[bytes]) -> str:
    as_folders(folder, contents)
    rows = [f"set/{'ab'[number % 2]}/{number:03}.png,{number % 2}" for number in range(len(contents))]
    (folder / "set.csv").write_text("\n".join(["path,label", *rows]))
    return str(folder / "set.csv")


def as_tar(folder: Path, contents: list[bytes]) -> str:
    members = []
    for number, content in enumerate(contents):
        members += [(f"{number:03}.png", content), (f"{number:03}.cls", str(number % 2).encode())]
    write_tar(folder / "set.tar", members)
    return str(folder / "set.tar")


def as_saved(folder: Path, contents: list[bytes]) -> str:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "label": [number % 2 for number in range(len(contents))],
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder / "saved")
    return str(folder / "saved")


def as_npz(folder: Path, contents: list[bytes]) -> str:
    ends = np.cumsum([0, *map(len, contents)])
    labels = np.arange(len(contents)) % 2
    np.savez(folder / "set.npz", x_jpeg=np.frombuffer(b"".join(contents), np.uint8), x_offsets=ends, x_labels=labels)
    return f"{folder / 'set.npz'}:x"


FORMS = {"folders": as_folders, "table": as_table, "tar": as_tar, "saved": as_saved, "npz": as_npz}


def in_order(form: str, count: int) -> list[int]:
    """The order of a form's samples."""
    return [*range(0, count, 2), *range(1, count, 2)] if form == "folders" else list(range(count))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_scales_and_says_it_at_every_run(form: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 4, 4), dtype=np.uint16)
    spec = FORMS[form](tmp_path, [encoded(Image.fromarray(each)) for each in values])
    for _ in range(2):
        news = Heard()
        split = load_data(spec, progress=news)
        assert np.array_equal(split.inputs[..., 0].numpy(), np.rint(values[in_order(form, 5)] / 257))
        assert [line for line in news.said if "16 bits" in line] == [
            f"{spec}: 5 of 5 pictures have 16 bits a channel: scaled to 8"
        ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("upright", [None, True, False])
def test_every_form_turns_as_its_library_does(form: str, upright: bool | None, tmp_path: Path) -> None:
    """Among them 5 to 8, which swap height and width: all of one shape once they are turned, or as they are stored."""
    orientations = [6, 8, 5, 7] if upright or (upright is None and form == "saved") else [1, 2, 3, 6]
    contents = [turned_photo(each) for each in orientations]
    spec = FORMS[form](tmp_path, contents)
    turns = form == "saved" if upright is None else upright
    right = [
        ImageOps.exif_transpose(image) if turns else image for image in (Image.open(io.BytesIO(c)) for c in contents)
    ]
    count = sum(each > 1 for each in orientations)
    what = "turned upright (upright = false" if turns else "taken as stored (upright = true"
    for _ in range(2):
        news = Heard()
        split = load_data({"path": spec} | ({} if upright is None else {"upright": upright}), progress=news)
        for place, number in enumerate(in_order(form, 4)):
            assert np.array_equal(split.inputs[place].numpy(), np.asarray(right[number]))
        assert any(f"{spec}: {count} of 4 pictures have an EXIF orientation: {what}" in line for line in news.said)
    if form == "saved" and upright is None:
        library = datasets.load_from_disk(spec)
        assert all(np.array_equal(split.inputs[k].numpy(), np.asarray(library[k]["image"])) for k in range(4))


def test_the_user_turns_after_it_was_decoded(tmp_path: Path) -> None:
    """What is kept of a set as stored is not taken for it turned."""
    spec = as_folders(tmp_path, [turned_photo(3), turned_photo(3)])
    stored, turned = load_data(spec), load_data({"path": spec, "upright": True})
    assert not torch.equal(stored.inputs, turned.inputs)
    assert torch.equal(stored.inputs.flip(1, 2), turned.inputs)


def test_what_a_mac_keeps_beside_a_picture_is_named(tmp_path: Path) -> None:
    spec = as_folders(tmp_path, [encoded(Image.fromarray(pixels()))] * 3)
    (tmp_path / "set/a/._000.png").write_bytes(b"\0\5\26\7" + bytes(100))
    with pytest.raises(TaskError, match=r"a/\._000\.png is damaged \(it is no picture but what a Mac keeps beside one"):
        load_data(spec)
    news = Heard()
    assert len(load_data({"path": spec, "corrupt": 0.5}, progress=news)) == 3
    assert "AppleDouble" in news.said[-1]


def test_one_is_said_of_one(tmp_path: Path) -> None:
    news = Heard()
    load_data(as_folders(tmp_path, [MODES["RGBA"][0], MODES["RGB"][0]]), how=Preparation(), progress=news)
    assert news.said == [f"{tmp_path / 'set'}: 1 of 2 pictures {SAID[TRANSPARENT][0]}"]


def test_pictures_of_tars_are_what_the_library_decodes() -> None:
    from webdataset.autodecode import IMAGE_EXTENSIONS

    assert set(IMAGES) <= set(IMAGE_EXTENSIONS)


@pytest.mark.parametrize("bits", [8, 16])
def test_zero_is_white_where_the_file_says_so(bits: int) -> None:
    """Pillow turns such TIFF files round up to 8 bits a channel; the others would be negatives."""
    grey = pixels()[..., 0]
    stored = Image.fromarray(grey if bits == 8 else grey.astype(np.uint16) * 257)
    given = encoded(stored, "TIFF", tiffinfo={262: 0})
    expected = np.asarray(Image.open(io.BytesIO(given)).convert("L")) if bits == 8 else 255 - grey
    assert np.array_equal(np.asarray(rgb(given)[0])[..., 0], expected)

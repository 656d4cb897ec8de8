"""Decoded images are made once, found again by content, and never believed when damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from merging.data import npz
from merging.data.cache import cache_folder
from merging.data.images import Resize
from merging.data.npz import load_npz
from merging.errors import TaskError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(file: Path, sizes: list[tuple[int, int]], seed: int = 0) -> str:
    generator = np.random.default_rng(seed)
    parts = []
    for width, height in sizes:
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "jpeg")
        parts.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, parts)])
    np.savez(file, a_jpeg=np.frombuffer(b"".join(parts), np.uint8), a_offsets=offsets, a_labels=np.arange(len(sizes)))
    return f"{file}:a"


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    decode = npz._Jpegs.decode

    def counted(self: npz._Jpegs, *args: object, **kwargs: object) -> object:
        calls.append(1)
        return decode(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(npz._Jpegs, "decode", counted)
    return calls


def test_decodes_as_pillow_does_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = write(tmp_path / "data.npz", [(20, 16)] * 5), count_decodes(monkeypatch)
    first, second = load_npz(source), load_npz(source)
    assert calls == [1]
    assert first.inputs.equal(second.inputs)
    assert first.labels.tolist() == second.labels.tolist() == [0, 1, 2, 3, 4]
    assert first.fingerprint == second.fingerprint == type(first).of(first.inputs, first.labels).fingerprint
    with np.load(tmp_path / "data.npz") as arrays:
        begin, end = arrays["a_offsets"][3:5]
        expected = np.asarray(Image.open(io.BytesIO(arrays["a_jpeg"][begin:end].tobytes())))
    assert np.array_equal(first.inputs[3].numpy(), expected)


def test_content_and_transform_decide_not_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = write(tmp_path / "data.npz", [(20, 16), (12, 30)]), count_decodes(monkeypatch)
    small = load_npz(source, Resize(8, 10))
    moved = (tmp_path / "data.npz").rename(tmp_path / "other.npz")
    assert load_npz(f"{moved}:a", Resize(8, 10)).fingerprint == small.fingerprint
    assert len(calls) == 1
    assert load_npz(f"{moved}:a", Resize(8, 12)).fingerprint != small.fingerprint
    write(moved, [(20, 16), (12, 30)], seed=1)
    assert load_npz(f"{moved}:a", Resize(8, 10)).fingerprint != small.fingerprint
    assert len(calls) == 3


def test_resized_one_by_one_as_all_together(tmp_path: Path) -> None:
    source = write(tmp_path / "data.npz", [(40, 32)] * 3)
    resize = Resize(16, 18)
    assert load_npz(source, resize).inputs.equal(resize(load_npz(source).inputs))


def test_a_damaged_cache_is_made_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = write(tmp_path / "data.npz", [(20, 16)] * 4), count_decodes(monkeypatch)
    first = load_npz(source)
    expected = first.inputs.clone()
    (images,) = folder.glob("images/*/images.npy")
    images.write_bytes(images.read_bytes()[:100])
    assert load_npz(source).inputs.equal(expected)
    assert len(calls) == 2
    assert len(list(folder.glob("images/*"))) == 1


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_time(tmp_path: Path, folder: Path) -> None:
    folder.write_text("a file, not a folder")
    assert load_npz(write(tmp_path / "data.npz", [(20, 16)] * 4)).inputs.shape == (4, 16, 20, 3)


def test_damaged_images_are_named_and_not_kept(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "data.npz", [(20, 16)] * 4)
    with np.load(tmp_path / "data.npz") as arrays:
        parts = dict(arrays)
    parts["a_jpeg"][parts["a_offsets"][2] + 100 : parts["a_offsets"][3]] = 0
    parts["a_jpeg"][parts["a_offsets"][2] : parts["a_offsets"][2] + 30] = 7
    np.savez(tmp_path / "data.npz", **parts)
    with pytest.raises(TaskError, match="image 2 is damaged"):
        load_npz(source)
    assert list(folder.glob("images/*")) == []


def test_the_maps_are_private(tmp_path: Path) -> None:
    source = write(tmp_path / "data.npz", [(20, 16)] * 2)
    load_npz(source)
    mapped = load_npz(source)
    before = mapped.inputs.clone()
    mapped.inputs.zero_()
    assert load_npz(source).inputs.equal(before)
    assert mapped.inputs.sum() == torch.tensor(0)


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERGING_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "merging"

"""Decoded images are made once, found again by content, and never believed when damaged."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from merging.data import npz
from merging.data.cache import Images, cached_images
from merging.data.damage import Damage, Tolerance
from merging.data.folders import load_images
from merging.data.npz import load_npz
from merging.errors import TaskError
from merging.plugins.task import Split
from merging.storage.user_cache import cache_folder
from tests.sized import sized


@pytest.fixture(autouse=True)
def folder(own_cache: Path) -> Path:
    return own_cache


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
    small = load_npz(source, sized(8, 10))
    moved = (tmp_path / "data.npz").rename(tmp_path / "other.npz")
    assert load_npz(f"{moved}:a", sized(8, 10)).fingerprint == small.fingerprint
    assert len(calls) == 1
    assert load_npz(f"{moved}:a", sized(8, 12)).fingerprint != small.fingerprint
    write(moved, [(20, 16), (12, 30)], seed=1)
    assert load_npz(f"{moved}:a", sized(8, 10)).fingerprint != small.fingerprint
    assert len(calls) == 3


def test_resized_one_by_one_as_all_together(tmp_path: Path) -> None:
    source = write(tmp_path / "data.npz", [(40, 32)] * 3)
    how = sized(16, 18)
    expected = [how.transform(Image.fromarray(image)) for image in load_npz(source).inputs.numpy()]
    assert np.array_equal(load_npz(source, how).inputs.numpy(), np.stack(expected))


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


def test_pixels_that_changed_on_disk_are_made_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, calls = write(tmp_path / "data.npz", [(20, 16)] * 4), count_decodes(monkeypatch)
    first = load_npz(source)
    expected = first.inputs.clone()
    for name in ("images.npy", "labels.npy"):
        (kept,) = folder.glob(f"images/*/{name}")
        content = bytearray(kept.read_bytes())
        content[-64:] = bytes(64) if name == "images.npy" else b"\1" * 64
        kept.write_bytes(content)
        again = load_npz(source)
        assert again.inputs.equal(expected)
        assert again.labels.tolist() == [0, 1, 2, 3]
        assert again.fingerprint == type(again).of(again.inputs, again.labels).fingerprint == first.fingerprint
    assert len(calls) == 3


def folder_of_images(place: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(6):
        file = place / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file)
    return place


def as_nobody(call: Callable[[], object]) -> None:
    """Calls in a process of another user, who owns nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside idle threads
        child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users can enter; pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("state", ["readable", "private", "damaged", "locked away", "leftovers"])
@pytest.mark.parametrize("form", ["npz", "folder"])
def test_a_cache_of_another_user_is_used_or_done_without(
    state: str, form: str, monkeypatch: pytest.MonkeyPatch, open_folder: Path
) -> None:
    tmp_path, folder = open_folder, open_folder / "cache"
    monkeypatch.setenv("MERGING_CACHE", str(folder))
    if form == "npz":
        source = write(tmp_path / "data.npz", [(20, 16)] * 4)
        load = functools.partial(load_npz, source)
    else:
        load = functools.partial(open_images, folder_of_images(tmp_path / "pictures"))
    expected = load()
    before = expected.inputs.clone()  # not the map, whose file is changed below
    (kept,) = (path for path in folder.glob("images/*") if path.is_dir())
    if state == "private":
        kept.chmod(0o700)
    elif state == "damaged":
        (kept / "images.npy").write_bytes(b"")
    elif state == "locked away":
        folder.chmod(0o700)
    elif state == "leftovers":
        (kept / "images.npy").unlink()
        folder.joinpath("images").chmod(0o777)
        (folder / "images" / f".{kept.name}.lock").touch(0o600)

    def used() -> None:
        again = load()
        assert again.inputs.equal(before)
        assert again.fingerprint == expected.fingerprint

    as_nobody(used)


def open_images(place: Path) -> Split:
    return load_images(
        [(file, int(file.parent.name[-1])) for file in sorted(place.rglob("*.png"))], sized(16, 18).transform
    )


def test_a_full_disk_is_no_error(tmp_path: Path, folder: Path) -> None:
    """A file system of one megabyte: images that fit into memory are used from there."""
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "filling").write_bytes(bytes(1000 << 10))
        found = load_npz(write(tmp_path / "data.npz", [(300, 300)] * 8))
        assert found.inputs.shape == (8, 300, 300, 3)
        many = open_images(folder_of_images(tmp_path / "pictures"))
        assert many.inputs.shape[0] == 6
        assert not [path for path in folder.rglob(".writing-*")]
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_two_that_need_the_same_images_decode_them_once(tmp_path: Path, folder: Path) -> None:
    """The second waits for the first, and finds what that one has made."""
    place = folder_of_images(tmp_path / "pictures")
    decoded = list[int]()

    def fill(images: Images) -> list[Damage]:
        time.sleep(0.2)
        decoded.append(1)
        images[:] = 7
        return []

    def load() -> Split:
        labels = np.zeros(3, np.int64)
        return cached_images(["same", str(place)], labels, lambda: (len(labels), 4, 4, 3), fill, Tolerance("x"))

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: load(), range(3)))
    assert len(decoded) == 1
    assert all(one.inputs.equal(found[0].inputs) for one in found)

"""Image data: the documented layout, and one clear line for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merging.data.images import Normalise
from merging.data.npz import load_npz
from merging.errors import TaskError
from merging.plugins.task import Split, Task
from merging.testing import TinyNet, blobs

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_raw_images_and_normalisation(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", some_images=IMAGES, some_labels=np.array([1, 0]))
    split = load_npz(f"{tmp_path}/data.npz:some")
    assert torch.equal(split.inputs, torch.from_numpy(IMAGES))
    assert split.labels.tolist() == [1, 0]
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = (IMAGES.astype(np.float64) / 255 - mean) / std
    assert np.allclose(Normalise(mean, std)(split.inputs).numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_images": IMAGES, "x_labels": np.array([[1, 1], [0, 1]])}, "integers of shape"),
        ({"x_images": IMAGES, "x_labels": np.array([0.5, 1.0])}, "integers of shape"),
        ({"x_images": IMAGES, "x_labels": np.array(1)}, "integers of shape"),
        ({"x_images": IMAGES / 255.0, "x_labels": np.array([1, 0])}, "uint8"),
        ({"x_images": IMAGES[..., 0], "x_labels": np.array([1, 0])}, "uint8"),
        ({"x_images": IMAGES, "x_labels": np.array([1])}, "2 samples but 1 labels"),
        ({"x_images": IMAGES[:0], "x_labels": np.array([], dtype=int)}, "empty"),
        ({"x_labels": np.array([1, 0])}, "documented layout"),
        ({"x_jpeg": np.zeros(9, np.uint8), "x_offsets": np.array([0, 4, 9]), "x_labels": np.array([1, 0])}, "image 0"),
        ({"x_jpeg": np.zeros(9, np.uint8), "x_offsets": np.array([0, 0.5]), "x_labels": np.array([1])}, "documented"),
    ],
)
def test_wrong_layouts(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(TaskError, match=said):
        load_npz(f"{tmp_path}/data.npz:x")


def test_damaged_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_images=IMAGES, x_labels=np.array([1, 0]))
    whole = (tmp_path / "data.npz").read_bytes()
    for damaged in (b"", whole[:100], whole[:-30], whole.replace(b"NUMPY", b"NAMPY"), b"no archive at all"):
        (tmp_path / "bad.npz").write_bytes(damaged)
        with pytest.raises(TaskError, match="documented layout"):
            load_npz(f"{tmp_path}/bad.npz:x")


def test_parts_of_a_task_keep_their_names() -> None:
    for name in ("held-out", "train"):
        tests: dict[str, Split] = {name: blobs(5, seed=0)}
        with pytest.raises(TaskError, match="cannot be called"):
            Task(name="t", build=lambda pool: TinyNet(), held_out=blobs(5, seed=1), tests=tests)

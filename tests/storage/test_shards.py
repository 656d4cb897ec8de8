"""Every byte of a model file is written once, by its own tensor: no write reaches a neighbour, none is missing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from merging.errors import CheckpointError
from merging.mixing.output import InMemory
from merging.storage.checkpoint import Checkpoint
from merging.storage.shards import ModelWriter
from merging.values.partition import TensorInfo

TENSORS: dict[str, TensorInfo] = {
    "a": ((2,), "float32"),
    "b": ((2, 3), "float32"),
    "c": ((), "float16"),
    "d": ((0, 4), "int8"),
}
SIZES = {"a": 8, "b": 24, "c": 2, "d": 0}


def patterns() -> dict[str, np.ndarray]:
    return {name: np.full(size, ord(name), dtype=np.uint8) for name, size in SIZES.items()}


def test_four_elements_for_a_tensor_of_two(tmp_path: Path) -> None:
    writer = ModelWriter(tmp_path, TENSORS)
    writer.write("b", 0, patterns()["b"])
    with pytest.raises(CheckpointError, match="tensor 'a' has 8 bytes; 16 bytes at 0 are not all its own"):
        writer.write("a", 0, np.ones(16, dtype=np.uint8))
    writer.__exit__(CheckpointError, None, None)
    assert load_file(tmp_path / "model.safetensors")["b"].view(torch.uint8).eq(ord("b")).all()


@given(
    name=st.sampled_from(sorted(SIZES)),
    offset=st.integers(-9, 30),
    count=st.integers(0, 30),
    shards=st.booleans(),
    memory=st.booleans(),
)
def test_a_write_stays_within_its_tensor(
    tmp_path: Path, name: str, offset: int, count: int, shards: bool, memory: bool
) -> None:
    folder = tmp_path / f"{name} {offset} {count} {shards} {memory}"
    if folder.exists():
        return
    folder.mkdir()
    writer = InMemory(TENSORS) if memory else ModelWriter(folder, TENSORS, 20 if shards else None)
    for other, pattern in patterns().items():
        if other != name:
            writer.write(other, 0, pattern)
    values = np.zeros(count, dtype=np.uint8)
    if offset < 0 or offset + count > SIZES[name]:
        with pytest.raises(
            CheckpointError, match=f"tensor '{name}' has {SIZES[name]} bytes; {count} bytes at {offset}"
        ):
            writer.write(name, offset, values)
    else:
        writer.write(name, offset, values)
    if isinstance(writer, ModelWriter):
        writer.__exit__(CheckpointError, None, None)
    for file in folder.glob("*.safetensors"):
        for other, tensor in load_file(file).items():
            if other != name:
                assert tensor.reshape(-1).view(torch.uint8).eq(ord(other)).all()


@given(
    cuts=st.sets(st.integers(1, 23), max_size=6),
    order=st.randoms(use_true_random=False),
    fault=st.sampled_from(["none", "lost", "twice", "overlap"]),
    memory=st.booleans(),
)
def test_pieces_cover_a_tensor_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], order: object, fault: str, memory: bool
) -> None:
    whole = np.arange(24, dtype=np.uint8)
    ends = [0, *sorted(cuts), 24]
    pieces = list(itertools.pairwise(ends))
    order.shuffle(pieces)  # type: ignore[attr-defined]
    if fault == "lost":
        pieces.pop()
    elif fault == "twice":
        pieces.append(pieces[0])
    elif fault == "overlap":
        start, stop = pieces[-1]
        pieces[-1] = (start - 1, stop) if start else (0, stop)
        pieces = [*pieces, (0, 1)] if not start else pieces
    folder = tmp_path_factory.mktemp("pieces")
    tensors: dict[str, TensorInfo] = {"w": ((24,), "uint8")}

    def write() -> torch.Tensor:
        if memory:
            writer = InMemory(tensors)
            for start, stop in pieces:
                writer.write("w", start, whole[start:stop])
            return writer.state_dict()["w"]
        with ModelWriter(folder, tensors) as files:
            for start, stop in pieces:
                files.write("w", start, whole[start:stop])
        return load_file(folder / "model.safetensors")["w"]

    if fault == "none":
        assert write().tolist() == whole.tolist()
    else:
        said = "never written" if fault == "lost" else "were written before"
        with pytest.raises(CheckpointError, match=f"tensor 'w'.*{said}"):
            write()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
def test_elements_are_counted_in_bytes(tmp_path: Path, dtype: str) -> None:
    """An array of numbers is its bytes, in any layout."""
    values = np.arange(6).astype(dtype).reshape(2, 3)
    tensors: dict[str, TensorInfo] = {"w": ((3, 2), dtype), "x": ((6,), dtype)}
    with ModelWriter(tmp_path, tensors) as writer:
        writer.write("x", 0, values)  # type: ignore[arg-type]
        writer.write("w", 0, values.T)  # type: ignore[arg-type]
    found = load_file(tmp_path / "model.safetensors")
    assert found["x"].tolist() == list(range(6))
    assert found["w"].tolist() == values.T.tolist()
    assert Checkpoint(tmp_path / "model.safetensors").tensors.keys() == {"w", "x"}
    with pytest.raises(CheckpointError, match="not all its own"):
        InMemory({"w": ((1,), dtype)}).write("w", 0, np.zeros(1 + math.prod((2,)) * 8, dtype=np.uint8))


def test_an_error_on_the_way_is_the_one_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ModelWriter(tmp_path, TENSORS):
        raise KeyError
    with (
        pytest.raises(CheckpointError, match="tensor 'a' has 8 bytes; 8 of them were never written"),
        ModelWriter(tmp_path / "..", TENSORS),
    ):
        pass


def test_a_dtype_that_safetensors_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor 'w' is float8_e8m0fnu, which a safetensors file cannot hold"):
        ModelWriter(tmp_path, {"a": ((1,), "float32"), "w": ((1,), "float8_e8m0fnu")})
    assert not list(tmp_path.iterdir())

"""Checkpoints: the same weights have the same hash in any file; what cannot be merged is refused by name."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors.torch import save_file
from torch import Tensor

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool)


def state_dict(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    numbers = torch.arange(6, dtype=torch.float64).sub(2.5).reshape(2, 3)
    return {"b.weight": numbers.to(dtype), "a.bias": torch.ones(3).to(dtype), "scalar": torch.tensor(1.0).to(dtype)}


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def slow_hash(state: dict[str, Tensor]) -> str:
    """Element by element, independent of how tensors lie in memory."""
    data = b""
    for name in sorted(state):
        tensor = state[name]
        raw = tensor.clone().view(torch.uint8) if tensor.ndim else tensor.reshape(1).clone().view(torch.uint8)
        data += f"{name}\0{str(tensor.dtype)[6:]}\0{list(tensor.shape)}\0".encode()
        data += bytes(int(byte) for byte in raw.reshape(-1))
    return blake3(data).hexdigest()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_weights_have_the_same_hash_in_any_file(tmp_path: Path, dtype: torch.dtype) -> None:
    state = state_dict(dtype)
    backwards = dict(reversed(list(state.items())))
    files = [
        save(state, tmp_path / "x.safetensors"),
        save(state, tmp_path / "x.pt"),
        save(backwards, tmp_path / "y.pt"),
    ]
    assert {Checkpoint(path).hash for path in files} == {slow_hash(state)}
    assert content_hash(state) == slow_hash(state)


def test_the_hash_sees_names_shapes_dtypes_and_values() -> None:
    state = state_dict()
    others = [
        {**state, "a.bias": state["a.bias"] + 1},
        {**state, "a.bias": state["a.bias"].double()},
        {**state, "b.weight": state["b.weight"].reshape(3, 2)},
        {"c" + name: tensor for name, tensor in state.items()},
        {**state, "a.bias": -0.0 * state["a.bias"]},
        {**state, "a.bias": 0.0 * state["a.bias"]},
    ]
    assert len({content_hash(s) for s in [state, *others]}) == 7


def test_the_hash_does_not_see_strides() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    assert content_hash({"w": square.t()}) == content_hash({"w": square.t().contiguous()})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_reads_back_every_dtype_and_shape(tmp_path: Path, suffix: str) -> None:
    state = {str(dtype)[6:]: torch.tensor([[1, 0, 1]]).to(dtype) for dtype in DTYPES}
    state |= {"zero_dim": torch.tensor(7), "zero_dim_float": torch.tensor(-0.0)}
    checkpoint = Checkpoint(save(state, tmp_path / f"x{suffix}"))
    loaded = checkpoint.load()
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)
        assert checkpoint.tensors[name] == (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    assert checkpoint.hash == content_hash(state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "ema", "model_state_dict"])
def test_wrappers_are_undone_and_said(tmp_path: Path, wrapper: str) -> None:
    state = state_dict()
    checkpoint = Checkpoint(save({wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "x.pt"))
    assert checkpoint.hash == content_hash(state)
    assert any(f"'{wrapper}'" in note for note in checkpoint.notes)


def test_nested_wrappers_and_two_of_them(tmp_path: Path) -> None:
    state, other = state_dict(), {name: t + 1 for name, t in state_dict().items()}
    nested = Checkpoint(save({"model": {"state_dict": OrderedDict(state)}}, tmp_path / "nested.pt"))
    assert nested.hash == content_hash(state)
    assert any("model.state_dict" in note for note in nested.notes)
    path = save({"ema": other, "state_dict": state}, tmp_path / "both.pt")
    with pytest.raises(CheckpointError, match=r"2 sets of tensors: 'ema' .*'state_dict' .*choose one with `key="):
        Checkpoint(path)
    both = Checkpoint(path, key="state_dict")
    assert both.hash == content_hash(state)
    assert any("left out: 'ema'" in note for note in both.notes)
    assert Checkpoint(path, key="ema").hash == content_hash(other)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_are_undone_and_said(tmp_path: Path, prefix: str, suffix: str) -> None:
    state = state_dict()
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    checkpoint = Checkpoint(save(prefixed, tmp_path / f"x{suffix}"))
    assert list(checkpoint.tensors) == [
        k.removeprefix(prefix) for k in Checkpoint(tmp_path / f"x{suffix}")._stored.values()
    ]
    assert checkpoint.hash == content_hash(state)
    assert len(checkpoint.notes) == len(set(prefix.split(".")) - {""})  # each wrapper is said once


def test_a_prefix_that_only_some_names_carry_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert set(Checkpoint(save(state, tmp_path / "x.pt")).tensors) == set(state)


def test_wrapped_prefixed_ema_inside(tmp_path: Path) -> None:
    state = state_dict()
    content = {"ema": {f"module.{name}": tensor for name, tensor in state.items()}}
    assert Checkpoint(save(content, tmp_path / "x.pt")).hash == content_hash(state)


def test_ties_are_found(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    state = {"module.in": shared, "module.out": shared, "module.other": shared.clone(), "module.part": shared[:2]}
    checkpoint = Checkpoint(save(state, tmp_path / "x.pt"))
    assert checkpoint.ties == (("in", "out"),)
    assert Checkpoint(save({"a": shared}, tmp_path / "y.safetensors")).ties == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_nan_is_refused_by_file_and_tensor(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    state = state_dict(dtype)
    state["a.bias"][1] = value
    path = save(state, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors.*'a\.bias'"):
        _ = Checkpoint(path).hash


def test_large_float64_values_are_not_taken_for_infinite(tmp_path: Path) -> None:
    state = {"w": torch.tensor([1e300], dtype=torch.float64)}
    assert Checkpoint(save(state, tmp_path / "x.pt")).hash == content_hash(state)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save({"state_dict": state_dict(), "evil": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil\.pt.*run code"):
        Checkpoint(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(state_dict(), tmp_path / f"torn{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CheckpointError, match="torn"):
        Checkpoint(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_garbage_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(b"not a checkpoint at all" * 10)
    with pytest.raises(CheckpointError, match="garbage"):
        Checkpoint(path)


def test_torch_s_old_format_is_named(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"old\.pt.*save it again"):
        Checkpoint(tmp_path / "old.pt")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"model": {}}, 5], ids=str)
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pt.*state dict"):
        Checkpoint(save(content, tmp_path / "x.pt"))
    with pytest.raises(CheckpointError, match="no tensors"):
        Checkpoint(save({}, tmp_path / "x.safetensors"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        Checkpoint(tmp_path / "nowhere.pt")


def test_what_is_no_tensor_is_ignored_and_said(tmp_path: Path) -> None:
    checkpoint = Checkpoint(save({**state_dict(), "version": 2}, tmp_path / "x.pt"))
    assert set(checkpoint.tensors) == set(state_dict())
    assert any("version" in note for note in checkpoint.notes)

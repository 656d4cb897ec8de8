"""The formats behind a checkpoint: each gives the same tensors and bytes, and a new one is one file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from merging.errors import CheckpointError, NameTakenError
from merging.storage import tensor_file
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.dtypes import SAFETENSORS, dtype_name, itemsize, torch_dtype
from merging.storage.file_kind import SUFFIXES, format_of, looks_like_a_model
from merging.storage.tensor_file import FORMATS, TensorFile, file_format

SAVE: dict[str, Callable[[dict[str, Tensor], Path], object]] = {"safetensors": save_file, "torch.save": torch.save}
DTYPES = [torch_dtype(name) for name in sorted(SAFETENSORS.values())]
TENSORS = st.tuples(
    st.sampled_from(DTYPES), st.lists(st.integers(1, 4), max_size=3), st.binary(min_size=512, max_size=512)
)
STATES = st.dictionaries(
    st.from_regex(r"[a-zäß]{1,9}(\.[a-z0-9]{1,5})?", fullmatch=True), TENSORS, min_size=1, max_size=5
)

NPZ = '''
"""NumPy's archives, as somebody would add them: one file."""

import numpy as np
import torch

from merging.storage.tensor_file import TensorFile, file_format


@file_format
class NpzFile(TensorFile):
    format = "npz"
    suffixes = (".npz",)

    def __init__(self, path, key=""):
        super().__init__(path, key)
        self._arrays = dict(np.load(path))
        self.tensors = {name: (array.shape, str(array.dtype)) for name, array in self._arrays.items()}
        self.notes = ("read from an archive",)

    @classmethod
    def recognises(cls, path, head):
        return head[:4] == b"PK\\x03\\x04" and b".npy" in head[:200]

    def read(self, key):
        return torch.from_numpy(self._arrays[key])

    def read_bytes(self, key, offset, into):
        raw = self._arrays[key].reshape(-1).view(np.uint8)
        into[:] = raw[offset : offset + len(into)].data
'''


def made(drawn: dict[str, tuple[torch.dtype, list[int], bytes]]) -> dict[str, Tensor]:
    """Tensors of any bits, NaN among them; booleans are 0 or 1."""
    state = {}
    for name, (dtype, shape, content) in drawn.items():
        size = int(np.prod(shape)) * dtype.itemsize
        raw = torch.tensor(list(content[:size]), dtype=torch.uint8)
        state[name] = (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(shape)
    return state


def bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("kind", sorted(SAVE))
@given(drawn=STATES, data=st.data())
def test_every_format_gives_what_was_saved(
    kind: str, drawn: dict[str, tuple[torch.dtype, list[int], bytes]], data: st.DataObject, tmp_path: Path
) -> None:
    state = made(drawn)
    path = tmp_path / content_hash(state)
    SAVE[kind](state, path)
    form = format_of(path)
    file = form(path)
    assert form.format == kind
    assert file.tensors == {name: (tuple(t.shape), dtype_name(t)) for name, t in state.items()}
    for name, tensor in state.items():
        read = file.read(name)
        assert (read.dtype, read.shape, bits(read)) == (tensor.dtype, tensor.shape, bits(tensor))
        whole = bits(tensor)
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        into = bytearray(stop - start)
        file.read_bytes(name, start, memoryview(into))
        assert into == whole[start:stop]


@pytest.fixture(params=sorted(SAVE))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"m{next(k.suffixes[0] for k in FORMATS if k.format == request.param)}"
    SAVE[request.param]({"w": torch.arange(6.0), "b": torch.ones(2)}, path)
    return path


def test_a_file_that_was_written_to_is_said(saved: Path) -> None:
    file = format_of(saved)(saved)
    file.check_unchanged()
    saved.write_bytes(saved.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="has changed since it was opened; start again"):
        file.check_unchanged()
    saved.unlink()
    with pytest.raises(CheckpointError, match="has changed since it was opened; start again"):
        file.check_unchanged()


def test_formats_agree_on_a_sharded_model_of_both(tmp_path: Path) -> None:
    state = {"module.w": torch.arange(6.0), "module.b": torch.ones(2)}
    save_file({"module.w": state["module.w"]}, tmp_path / "a.safetensors")
    torch.save({"module.b": state["module.b"]}, tmp_path / "b.bin")
    index = '{"weight_map": {"module.w": "a.safetensors", "module.b": "b.bin"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.hash == content_hash({"w": state["module.w"], "b": state["module.b"]})


def open_files(path: Path) -> int:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(link.is_symlink() and os.readlink(link) == str(path) for link in links)


def test_threads_share_one_handle_which_is_closed_with_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.arange(1000.0)}, path)
    parts = [bytearray(40) for _ in range(100)]

    def read() -> None:
        checkpoint = Checkpoint(path)
        assert open_files(path) == 0
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: checkpoint.read_bytes("w", 40 * n, memoryview(parts[n])), range(100)))
        assert open_files(path) == 1

    read()
    assert b"".join(parts) == bits(torch.arange(1000.0))
    gc.collect()
    assert open_files(path) == 0


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_is_said_when_python_ends_with_a_checkpoint_open(tmp_path: Path) -> None:
    save_file({"w": torch.arange(10.0)}, tmp_path / "m.safetensors")
    ran = python(
        """
        import sys
        from merging.storage.checkpoint import Checkpoint

        kept = Checkpoint(sys.argv[1])
        kept.itself, sys.kept = kept, kept
        kept.read_bytes("w", 0, memoryview(bytearray(8)))
        assert "torch" not in sys.modules
        """,
        tmp_path / "m.safetensors",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_third_format_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/npz_file.py").write_text(NPZ)
    models = tmp_path / "models"
    models.mkdir()
    states = [{"layer.w": np.full((2, 3), value, np.float32), "n": np.arange(3)} for value in (1.0, 4.0)]
    for number, state in enumerate(states):
        np.savez(models / f"m{number}.npz", **state)  # type: ignore[arg-type]
    ran = python(
        """
        import sys
        import merging.storage

        merging.storage.__path__.append(sys.argv[1])
        import merging

        pool = merging.ModelPool.open([sys.argv[2]])
        assert pool.names == ("m0", "m1") and pool.checkpoints[0].notes == ("read from an archive",)
        merging.merge(pool, merging.Uniform(), output=sys.argv[3])
        """,
        tmp_path / "here",
        models,
        tmp_path / "out",
    )
    assert ran.returncode == 0, ran.stderr
    merged = Checkpoint(tmp_path / "out/model.safetensors").load()
    assert torch.equal(merged["layer.w"], torch.full((2, 3), 2.5))
    assert torch.equal(merged["n"], torch.arange(3))


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[type[TensorFile]]]:
    known = list(FORMATS)
    yield FORMATS
    FORMATS[:] = known


def test_a_format_of_somebody_s_own(tmp_path: Path, formats: list[type[TensorFile]]) -> None:
    np.savez(tmp_path / "model.bin", w=np.ones((2, 2), np.float32))
    os.rename(tmp_path / "model.bin.npz", tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="is a NumPy archive; save the whole state dict as safetensors"):
        Checkpoint(tmp_path / "model.bin")
    assert not looks_like_a_model(tmp_path / "model.bin")
    exec(NPZ, {})  # noqa: S102 (what importing the file does)
    assert [known.safe for known in formats] == [True, True, False]
    checkpoint = Checkpoint(tmp_path / "model.bin")
    assert checkpoint.notes == ("read from an archive", "model.bin is a file of npz in spite of its name")
    assert checkpoint.hash == content_hash({"w": torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=r"is a npz file, which has no 'ema'; leave the key out"):
        Checkpoint(tmp_path / "model.bin", key="ema")


@pytest.mark.parametrize(("name", "suffix"), [("safetensors", ".x"), ("x", ".pt")])
def test_a_format_whose_name_or_suffix_is_taken(name: str, suffix: str, formats: list[type[TensorFile]]) -> None:
    with pytest.raises(NameTakenError, match=r"there is a format of files '.+' already: .*File"):
        file_format(type("Other", (TensorFile,), {"format": name, "suffixes": (suffix,)}))
    assert len(formats) == len(SAVE)


def test_suffixes_are_those_of_the_formats_the_safe_one_first() -> None:
    assert SUFFIXES == (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
    assert [known.format for known in tensor_file.FORMATS] == list(SAVE)


@pytest.mark.parametrize("name", sorted(SAFETENSORS.values()))
def test_dtypes_and_their_names(name: str) -> None:
    assert dtype_name(torch.empty(1, dtype=torch_dtype(name))) == name
    assert itemsize(name) == torch_dtype(name).itemsize

"""What a file is, by its bytes: read whatever it is called, or named in words a reader understands."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.file_kind import format_of
from merging.storage.pickle_file import PickleFile
from merging.storage.safetensors_file import SafetensorsFile
from tests.conftest import Merge

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea\nsize 346293864\n")


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)).save(str(path))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())


def compressed(path: Path) -> None:
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "lfs": (lfs, "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "zeros": (lambda path: path.write_bytes(bytes(500)), "a file of zeros"),
    "page": (lambda path: path.write_text("\ufeff <!DOCTYPE html><html>Sign in</html>"), "a web page"),
    "xml": (lambda path: path.write_text('<?xml version="1.0"?><Error>AccessDenied</Error>'), "an XML document"),
    "s3": (lambda path: path.write_text("<Error><Code>NoSuchKey</Code></Error>"), "a text, not a checkpoint"),
    "entry": (lambda path: path.write_text("Entry not found"), "a text, not a checkpoint .'Entry not found"),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"model": np.ones(3)})),
        "plain pickle|save the whole|rename",
    ),
    "json": (lambda path: path.write_text('{"error": "not found"}'), "a JSON text"),
    "torchscript": (torchscript, "a TorchScript archive"),
    "gguf": (lambda path: path.write_bytes(b"GGUF\x03" + bytes(60)), "a GGUF file"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60)), "an HDF5 file"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"weights")), "a gzip archive"),
    "tar": (tar, "a tar archive"),
    "npz": (lambda path: path.write_bytes(npz()), "a NumPy archive"),
    "npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(60)), "a NumPy array"),
    "compressed": (compressed, "a compressed zip archive"),
    "cut": (lambda path: (torch.save(STATE, path), path.write_bytes(path.read_bytes()[:700])), "ends too early"),
}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("name", list(FOREIGN))
def test_what_is_no_checkpoint_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    make, words = FOREIGN[name]
    path = tmp_path / f"model{suffix}"
    make(path)
    with pytest.raises(CheckpointError, match=words) as raised:
        Checkpoint(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["lfs", "torchscript"])
def test_the_command_says_so_too(name: str, tmp_path: Path, merge: Merge) -> None:
    FOREIGN[name][0](tmp_path / "m.pt")
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "m.pt")
    assert ran.code == 2
    assert FOREIGN[name][1] in ran.err


def test_a_pickle_called_safetensors_is_said(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is a file of torch\.save, not of safetensors; rename it to model\.pt"):
        Checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("length", [0x180, 0x580])
def test_a_safetensors_file_that_ends_early_is_no_pickle(length: int, tmp_path: Path) -> None:
    """The header's length may begin as a pickle does: \\x80, and a protocol."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"a":' + b" " * 100)
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        Checkpoint(path)


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "5d41402abc4b2a76b9719d911017c592"])
def test_either_kind_is_read_under_any_name(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / name)
    assert format_of(tmp_path / name) is SafetensorsFile
    first = Checkpoint(tmp_path / name)
    assert first.hash == content_hash(STATE)
    torch.save(STATE, tmp_path / name)
    assert format_of(tmp_path / name) is PickleFile
    second = Checkpoint(tmp_path / name)
    assert second.hash == content_hash(STATE)
    notes = " ".join((*first.notes, *second.notes))
    assert notes.count("in spite of its name") == (1 if "." in name else 0)


@example(content=b"\x80", suffix=".pt")
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".safetensors", ".bin", ""]))
def test_any_bytes_are_refused_in_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        Checkpoint(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_unsigned_tensors_are_read_and_written(dtype: torch.dtype, suffix: str, tmp_path: Path, merge: Merge) -> None:
    state = STATE | {"table": torch.tensor([torch.iinfo(dtype).max, 3], dtype=dtype)}
    for number in range(2):
        (torch.save if suffix == ".pt" else save_file)(state, tmp_path / f"m{number}{suffix}")
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path, "--output", "out")
    assert ran.code == 0, ran.err
    assert Checkpoint(tmp_path / "out/model.safetensors").hash == content_hash(state)


def test_small_files_do_not_become_large(tmp_path: Path, merge: Merge) -> None:
    """A pickle of a few hundred bytes that asks for gigabytes: by a number alone, or by a stride of nothing."""
    torch.save({"w": torch.ones(2), "b": bytearray(10)}, tmp_path / "small.pt")
    with zipfile.ZipFile(tmp_path / "small.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = b"\x80\x02}X\x01\x00\x00\x00wcbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x40\x01\x85Rs."
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="holds a bytearray"):
        Checkpoint(tmp_path / "bomb.pt")
    torch.save({"w": torch.ones(1).expand(1 << 20, 1 << 10)}, tmp_path / "stride.pt")
    assert (tmp_path / "stride.pt").stat().st_size < 3000
    with pytest.raises(CheckpointError, match=r"its tensors would take 4\.3 GB"):
        Checkpoint(tmp_path / "stride.pt")
    torch.save({f"w{n}": torch.ones(1 << 20).expand(60, 1 << 20) for n in range(30)}, tmp_path / "many.pt")
    with pytest.raises(CheckpointError, match="its tensors would take"):
        Checkpoint(tmp_path / "many.pt")
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "bomb.pt")
    assert ran.code == 2

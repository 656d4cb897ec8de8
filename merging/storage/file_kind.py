"""What a file is, by its first bytes: names say too little (Hub caches have none) and are sometimes wrong."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from merging.errors import CheckpointError

SAFETENSORS, TORCH = "safetensors", "torch"
"""The kinds that can be read; every other kind is a reason in words."""
_LONGEST_HEADER = 100_000_000
"""Bytes; what the safetensors library allows."""
_TEXTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"<!doctype", "a web page, not a checkpoint; download the file itself"),
    (b"<html", "a web page, not a checkpoint; download the file itself"),
    (b"<?xml", "an XML document, such as a download's error message; download the file itself"),
)
_MAGIC = (
    (b"GGUF", "a GGUF file of llama.cpp, whose weights are quantised; merge the original checkpoint"),
    (b"\x89HDF", "an HDF5 file (Keras); save the PyTorch weights as safetensors"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive; unpack it first"),
    (b"\x93NUMPY", "a NumPy array; save the whole state dict as safetensors"),
)


def kind_of(path: Path) -> str:
    """``safetensors``, ``torch``, or in words what else a file is and the way out.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
        if head[:4] == b"PK\x03\x04":
            try:
                return _of_zip(path)
            except Exception:  # zipfile raises whatever damaged bytes provoke
                return "a damaged zip archive, or one that ends too early; download or save it again"
        if head[257:262] == b"ustar":
            return "a tar archive; unpack it first"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not size:
        return "an empty file; download or save it again"
    if not head.strip(b"\0"):
        return "a file of zeros, as after a power cut; download or save it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, words in _TEXTS:
        if start.startswith(mark):
            return words
    if size > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, _LONGEST_HEADER):
        return SAFETENSORS
    for mark, words in _MAGIC:
        if head.startswith(mark):
            return words
    if head[0] == 0x80 and head[1:2] <= b"\x05" and len(head) > 1:
        return TORCH
    if start[:1] in (b"{", b"["):
        return "a JSON text, not a checkpoint"
    text = head[:200].decode("utf-8", "ignore").strip()
    if text and len(text.encode()) >= len(head[:200].strip()) - 4 and all(c.isprintable() or c.isspace() for c in text):
        return f"a text, not a checkpoint ('{' '.join(text.split())[:40]}…'); download or save the file again"
    return "no file of safetensors or torch.save"


def _of_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = {member.filename.partition("/")[2] or member.filename for member in members}
    if "constants.pkl" in names:
        return "a TorchScript archive, which holds code; load it with torch.jit.load and save its state_dict()"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive; save the whole state dict as safetensors"
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "a compressed zip archive, which torch.save never writes; unpack it or save the state dict again"
    if "data.pkl" in names:
        return TORCH
    return "a zip archive without a state dict"


@contextlib.contextmanager
def readable_name(path: Path) -> Iterator[str]:
    """A name under which libraries that know UTF-8 only can open a file, whatever bytes its own name has.

    Raises:
        CheckpointError: there is none on this system.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        handle = os.open(path, os.O_RDONLY)
        try:
            if not os.path.exists(f"/proc/self/fd/{handle}"):
                raise CheckpointError(f"{path}: its name is no UTF-8; rename the file") from None
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        yield name


def looks_like_a_model(path: Path) -> bool:
    """Whether a file without a telling name holds weights; never raises."""
    try:
        return kind_of(path) in (SAFETENSORS, TORCH)
    except CheckpointError:
        return False

"""What a file is, by its first bytes: names say too little (Hub caches have none) and are sometimes wrong."""

from __future__ import annotations

import importlib
import pkgutil
import zipfile
from pathlib import Path

from merging import storage
from merging.errors import CheckpointError, refused
from merging.storage.tensor_file import FORMATS, TensorFile

for _module in pkgutil.iter_modules(storage.__path__):  # a new format is a new file
    if _module.name.endswith("_file"):
        importlib.import_module(f"{storage.__name__}.{_module.name}")
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
"""Suffixes that checkpoints have, those of the safe formats first."""
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


def format_of(path: Path) -> type[TensorFile]:
    """Finds the format of a file.

    Raises:
        CheckpointError: the file cannot be read, or is something else, which is said with the way out.
    """
    try:
        head = _head(path)
        found = _recognised(path, head)
        if found is not None:
            return found
        kind = _other(path, head)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({refused(error)})") from None
    if kind:
        raise CheckpointError(f"{path}: is {kind}")
    named = next((known for known in FORMATS if known.safe and path.suffix in known.suffixes), None)
    if named is not None:  # whose library says what is wrong with it
        return named
    raise CheckpointError(f"{path}: is no file of {' or '.join(known.format for known in FORMATS)}")


def looks_like_a_model(path: Path) -> bool:
    """Whether a file without a telling name holds weights; never raises."""
    try:
        return _recognised(path, _head(path)) is not None
    except OSError:
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _recognised(path: Path, head: bytes) -> type[TensorFile] | None:
    return next((known for known in FORMATS if known.recognises(path, head)), None)


def _other(path: Path, head: bytes) -> str:
    """Says what a file is that no format recognises, with the way out; empty where that is not known."""
    if head[:4] == b"PK\x03\x04":
        return _of_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if not head:
        return "an empty file; download or save it again"
    if not head.strip(b"\0"):
        return "a file of zeros, as after a power cut; download or save it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, words in _TEXTS:
        if start.startswith(mark):
            return words
    for mark, words in _MAGIC:
        if head.startswith(mark):
            return words
    if start[:1] in (b"{", b"["):
        return "a JSON text, not a checkpoint"
    text = head[:200].decode("utf-8", "ignore").strip()
    if text and len(text.encode()) >= len(head[:200].strip()) - 4 and all(c.isprintable() or c.isspace() for c in text):
        return f"a text, not a checkpoint ('{' '.join(text.split())[:40]}…'); download or save the file again"
    return ""


def _of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile raises whatever damaged bytes provoke
        return "a damaged zip archive, or one that ends too early; download or save it again"
    names = {member.filename.partition("/")[2] or member.filename for member in members}
    if "constants.pkl" in names:
        return "a TorchScript archive, which holds code; load it with torch.jit.load and save its state_dict()"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive; save the whole state dict as safetensors"
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "a compressed zip archive, which torch.save never writes; unpack it or save the state dict again"
    return "a zip archive without a state dict"

"""Files of ``torch.save``: loaded by memory map without running code, and the state dict found in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import CheckpointError
from merging.storage.dtypes import info_of
from merging.storage.plain_tensors import check_plain, ties_of
from merging.storage.raw import bytes_of
from merging.storage.settings_inside import settings_in
from merging.storage.state_dict import state_dict_in
from merging.storage.tensor_file import TensorFile, file_format
from merging.storage.unpickling import load

if TYPE_CHECKING:
    from torch import Tensor

_LARGER = 8
_ROOM = 64 << 20
"""Tensors may be so many times the file's bytes (shared storages), and so many bytes more (small expanded buffers)."""


@file_format
class PickleFile(TensorFile):
    """A file of ``torch.save`` (see :class:`~merging.storage.tensor_file.TensorFile`).

    Args:
        path: the file.
        key: key of the mapping that is the state dict, dotted where it is nested, such as ``state_dict_ema``; empty:
            the only mapping of tensors there is.

    Raises:
        CheckpointError: the file wants to run code, is larger in memory than on disk, holds no state dict, or several
            of which none was chosen, or tensors that are not plain.
    """

    format = "torch.save"
    suffixes = (".pt", ".pth", ".bin", ".ckpt")
    safe = False
    keyed = True

    def __init__(self, path: Path, key: str = "") -> None:
        from merging.storage.class_names import classes_in  # which knows folders, and they the formats

        super().__init__(path, key)
        if path.suffix == ".safetensors":  # torch.load, too, goes by that name
            raise CheckpointError(f"{path}: is a file of torch.save, not of safetensors; rename it to {path.stem}.pt")
        content = load(path)
        found = state_dict_in(path, content, key)
        self._check_size(found.tensors)
        self._loaded = found.tensors
        self.notes, self.lightning = found.notes, found.lightning
        self.settings = settings_in(content)
        self.classes = {f"in the file: {where}": names for where, names in classes_in(content)}
        for name, tensor in found.tensors.items():
            check_plain(f"{path}: tensor '{name}'", tensor)
            self.tensors[name] = info_of(tensor)
        self.ties = ties_of(found.tensors)

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Whether the file is a zip archive as ``torch.save`` writes it, or a pickle."""
        if head[:4] == b"PK\x03\x04":
            return _is_state_dict(path)
        if (
            head[8:9] == b"{" and path.suffix == ".safetensors"
        ):  # one that ends within its header, whose length is \x80…
            return False
        return head[:1] == b"\x80" and b"" < head[1:2] <= b"\x05"

    def read(self, key: str) -> Tensor:
        """Gives one tensor as it was loaded: a view of the file's map."""
        return self._loaded[key]

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes, in the order of its elements."""
        raw = bytes_of(self._loaded[key])
        np.copyto(np.asarray(into), raw[offset : offset + len(into)])

    def _check_size(self, tensors: Mapping[str, Tensor]) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if size > _LARGER * self.path.stat().st_size + _ROOM:
            raise CheckpointError(
                f"{self.path}: its tensors would take {size / 1e9:,.1f} GB, the file has "
                f"{self.path.stat().st_size:,} bytes; save them with .contiguous()"
            )


def _is_state_dict(path: Path) -> bool:
    """Whether an archive is stored as ``torch.save`` does it: a pickle, no code, nothing compressed, no arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile raises whatever damaged bytes provoke
        return False
    names = {member.filename.partition("/")[2] or member.filename for member in members}
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return (
        "data.pkl" in names and "constants.pkl" not in names and stored and not any(n.endswith(".npy") for n in names)
    )

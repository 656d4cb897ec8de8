"""Large values on their way between processes: files named by their hash, mapped into memory where they are used."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from blake3 import blake3
from torch.utils.weak import WeakTensorKeyDictionary

from merging.errors import WorkersError
from merging.storage.atomic import swap
from merging.storage.dtypes import dtype_name, torch_dtype
from merging.storage.raw import bytes_of

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 64 << 10
"""Bytes from which on a tensor goes through a file instead of the message that names it."""


class Blob(NamedTuple):
    """A tensor in a file: the hash that the file is named by, dtype and shape."""

    digest: str
    dtype: str
    shape: tuple[int, ...]


class LackingError(WorkersError):
    """Files that are not on this machine; ``args`` are their digests."""


class Blobs:
    """Folders of tensors, each in a file that is named by its hash, so that it is written once.

    Args:
        folders: the folders in which files are looked for.
        home: the folder that tensors are written to; None: they are not, and go along in messages.
    """

    def __init__(self, folders: Sequence[Path], home: Path | None) -> None:
        self._folders, self.home = tuple(folders), home
        self._known: MutableMapping[Tensor, Blob] = WeakTensorKeyDictionary()

    def keep(self, tensor: Tensor) -> Blob:
        """Writes a tensor, unless it is there; the same object is hashed once.

        Args:
            tensor: any; it must not change afterwards.
        """
        blob = self._known.get(tensor)
        if blob is None or self.where(blob.digest) is None:
            raw = bytes_of(tensor.detach().cpu().contiguous())
            blob = Blob(blake3(raw.data, max_threads=blake3.AUTO).hexdigest(), dtype_name(tensor), tuple(tensor.shape))
            self.put(blob.digest, raw.data)
            self._known[tensor] = blob
        return blob

    def drop(self, digests: Iterable[str]) -> None:
        """Removes files from the folder that is written to; whoever has mapped one still has it."""
        if self.home is not None:
            for digest in digests:
                (self.home / digest).unlink(missing_ok=True)

    def anew(self) -> Blobs:
        """The same folders, for tensors that are kept no longer than this."""
        return Blobs(self._folders, self.home)

    def put(self, digest: str, data: memoryview | bytes) -> None:
        """Writes what was sent, unless it is there.

        Raises:
            WorkersError: it has another hash than it is named by.
        """
        if self.home is None or self.where(digest) is not None:
            return
        if blake3(data, max_threads=blake3.AUTO).hexdigest() != digest:
            raise WorkersError(f"what was sent as {digest[:12]}… has other bytes")
        swap(self.home / digest, bytes(data))

    def where(self, digest: str) -> Path | None:
        """The file with a hash; None where it is on no folder of this machine."""
        return next((folder / digest for folder in self._folders if (folder / digest).is_file()), None)

    def open(self, blob: Blob) -> Tensor:
        """Maps a tensor into memory: pages are shared by all processes of a machine until somebody writes to them.

        Raises:
            LackingError: its file is not here.
        """
        path = self.where(blob.digest)
        if path is None:
            raise LackingError(blob.digest)
        if not math.prod(blob.shape):
            return torch.empty(blob.shape, dtype=torch_dtype(blob.dtype))
        mapped = np.memmap(path, dtype=np.uint8, mode="c")
        return torch.from_numpy(mapped).view(torch_dtype(blob.dtype)).view(blob.shape)


def own_folder() -> Path:
    """The folder of this user on this machine for what was sent to it; made where it is missing.

    Raises:
        WorkersError: somebody else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"merging-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise WorkersError(f"{folder} belongs to somebody else; set TMPDIR to a folder of your own")
    return folder

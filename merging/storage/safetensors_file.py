"""Files of safetensors: a header that needs no torch, tensors by map, bytes by positioned reads."""

from __future__ import annotations

import json
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from merging.errors import CheckpointError, reason_of
from merging.storage.dtypes import SAFETENSORS
from merging.storage.settings_inside import settings_in
from merging.storage.tensor_file import TensorFile, file_format, readable_name
from merging.storage.training_inside import trained_in

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST_HEADER = 100_000_000
"""Bytes; what the safetensors library allows."""


@file_format
class SafetensorsFile(TensorFile):
    """A file of safetensors (see :class:`~merging.storage.tensor_file.TensorFile`)."""

    format = "safetensors"
    suffixes = (".safetensors",)

    def __init__(self, path: Path, key: str = "") -> None:
        super().__init__(path, key)
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._mapped: Any = None
        self._begins: dict[str, int] = {}  # key → where its bytes begin, from the file's beginning
        try:
            with readable_name(path) as readable:
                opened: Any = safe_open(readable, framework="np")  # for the header, which needs no torch
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            with path.open("rb") as file:  # valid: it was just opened
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened ({reason_of(error)})") from None
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: not a valid safetensors file ({error}); save it again") from None
        metadata = header.get("__metadata__") or {}
        self.settings, self.trained = settings_in(metadata), trained_in(metadata)
        for stored, part in slices.items():
            dtype = SAFETENSORS.get(part.get_dtype())
            if dtype is None:
                raise CheckpointError(f"{path}: tensor '{stored}' has unsupported dtype {part.get_dtype()}")
            self.tensors[stored] = (tuple(part.get_shape()), dtype)
            self._begins[stored] = 8 + length + header[stored]["data_offsets"][0]
        if not self.tensors:
            raise CheckpointError(f"{path}: holds no tensors")

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Whether the file begins with the length of a header that fits into it, and the header with a brace."""
        room = min(path.stat().st_size - 8, _LONGEST_HEADER)
        return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= room

    def read(self, key: str) -> Tensor:
        """Reads one tensor, as a view of the file's map."""
        try:
            with self._lock:
                if self._mapped is None:
                    self.check_unchanged()
                    with readable_name(self.path) as name:
                        self._mapped = safe_open(name, framework="pt")
            tensor: Tensor = self._mapped.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        return tensor

    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes by positioned reads, so that no map grows."""
        handle = self._opened()
        begin, done = self._begins[key] + offset, 0
        while done < len(into):
            count = os.preadv(handle, [into[done:]], begin + done)
            if count == 0:
                raise EOFError(key)
            done += count

    def _opened(self) -> int:
        """The file's descriptor, which is closed when nobody has this object any more, or Python ends."""
        with self._lock:
            if self._handle is None:
                self.check_unchanged()
                try:
                    self._handle = os.open(self.path, os.O_RDONLY)
                except OSError as error:  # gone meanwhile, or one file too many
                    raise CheckpointError(f"{self.path} cannot be read ({reason_of(error)})") from None
                weakref.finalize(self, os.close, self._handle)
            return self._handle

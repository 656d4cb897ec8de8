"""One state dict on disk, opened lazily: safetensors by map, ``.pt`` with ``weights_only=True``, one file or shards.

Wrappers (``{"state_dict": …}``) and prefixes (``module.``, ``_orig_mod.``) are undone and said.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from merging.errors import CheckpointError, reason_of, showable
from merging.storage.class_names import Names, classes_in
from merging.storage.companions import companions
from merging.storage.content import content_hash, has_only_finite
from merging.storage.dtypes import SAFETENSORS
from merging.storage.file_kind import SAFETENSORS as IS_SAFETENSORS
from merging.storage.file_kind import TORCH, kind_of, readable_name
from merging.storage.model_folder import INDEX_SUFFIX, SUFFIXES, files_of
from merging.storage.pickle_file import load
from merging.storage.settings_inside import settings_in
from merging.storage.wrapped_names import unwrapped
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor
KNOWN = frozenset(SAFETENSORS.values())
"""Dtypes that can be read and written."""


class Checkpoint:
    """A state dict on disk.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``; the index of a sharded one
            (``*.index.json``); or a folder with one of these, as Hugging Face's libraries save it.
        name: how it is called in recipes and reports; default: the file's name without its suffix, or the folder's.
        key: of the state dict in a file of ``torch.save`` that holds several, such as ``state_dict_ema``.

    Attributes:
        files: where the tensors are.
        tensors: name → (shape, dtype name), names without wrappers and prefixes, in the file's order.
        ties: groups of names that share one storage (only ``.pt`` files can say so).
        notes: what was unwrapped or ignored.
        settings: of the model, that stand in its file: dotted name → value.
        classes: that stand beside the tensors in a file of ``torch.save``: where → index → name.

    Raises:
        CheckpointError: the file cannot be read, holds no tensors, or several sets of them, or is a pickle that wants
            to run code.
    """

    def __init__(self, path: Path | str, name: str = "", key: str = "") -> None:
        self.path = Path(path)
        self.path = self.path.parent if self.path.name.endswith(INDEX_SUFFIX) else self.path
        self.key = key
        called = name or (Path(os.path.abspath(self.path)).name if self.path.is_dir() else stem(self.path))
        self.name = showable(called)
        self.notes: tuple[str, ...] = ()
        self.ties: tuple[tuple[str, ...], ...] = ()
        self.classes: dict[str, Names] = {}
        self.settings: dict[str, Any] = {}
        if not self.path.exists():
            raise CheckpointError(f"no such checkpoint: {self.path}")
        self.files, expected = files_of(self.path)
        self._places: dict[str, tuple[Path, int]] = {}  # key → file and offset of its bytes there
        self._states: dict[Path, tuple[int, ...]] = {}  # file → what tells that it was replaced
        self._readers: dict[Path, Any] = {}
        self._handles: dict[Path, int] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._tied_keys: list[list[str]] = []
        self._lightning = False
        self._lock = threading.Lock()
        stored: dict[str, TensorInfo] = {}
        for file in self.files:
            opened = self._open(file)
            twice = next((key for key in opened if key in stored), None)
            if twice is not None:
                raise CheckpointError(f"{self.path}: tensor '{twice}' stands in {file.name} and in another shard")
            stored |= opened
        lost = [key for key in expected if key not in stored]
        if lost:
            raise CheckpointError(f"{self.path}: the index names tensor '{lost[0]}', which no shard holds")
        self._stored = self._named(stored)
        torn = next((name for name in self._stored if not name.isascii() and not _is_text(name)), None)
        if torn is not None:
            raise CheckpointError(f"{self.path}: the name of tensor '{torn}' is no text; rename it and save again")
        self.tensors: dict[str, TensorInfo] = {name: stored[key] for name, key in self._stored.items()}

    def _open(self, file: Path) -> dict[str, TensorInfo]:
        """A file's tensors, whatever its name says it is."""
        kind = kind_of(file)
        if kind == IS_SAFETENSORS or (kind != TORCH and file.suffix == ".safetensors" and kind.startswith("no file")):
            if self.key and len(self.files) == 1:
                raise CheckpointError(f"{file}: is a safetensors file, which has no '{self.key}'; leave the key out")
            found = self._open_safetensors(file)
        elif kind == TORCH and file.suffix == ".safetensors":  # torch.load, too, goes by that name
            raise CheckpointError(f"{file}: is a file of torch.save, not of safetensors; rename it to {file.stem}.pt")
        elif kind == TORCH:
            found = self._open_pickle(file)
        else:
            raise CheckpointError(f"{file}: is {kind}")
        if file.suffix in SUFFIXES and (file.suffix == ".safetensors") != (kind == IS_SAFETENSORS):
            self.notes += (f"{file.name} is a file of {'torch.save' if kind == TORCH else kind} in spite of its name",)
        return found

    def _open_safetensors(self, path: Path) -> dict[str, TensorInfo]:
        try:
            self._states[path] = _state(path)
            with readable_name(path) as name:
                opened: Any = safe_open(name, framework="np")  # for the header, which needs no torch
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            with path.open("rb") as file:  # valid: it was just opened
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened ({reason_of(error)})") from None
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: not a valid safetensors file ({error}); save it again") from None
        self.settings |= settings_in(header.get("__metadata__") or {})
        found: dict[str, TensorInfo] = {}
        for key, part in slices.items():
            dtype = SAFETENSORS.get(part.get_dtype())
            if dtype is None:
                raise CheckpointError(f"{path}: tensor '{key}' has unsupported dtype {part.get_dtype()}")
            found[key] = (tuple(part.get_shape()), dtype)
            self._places[key] = (path, 8 + length + header[key]["data_offsets"][0])
        if not found:
            raise CheckpointError(f"{path}: holds no tensors")
        return found

    def _open_pickle(self, path: Path) -> dict[str, TensorInfo]:
        import torch

        self._states[path] = _state(path)
        found = load(path, self.key)
        self.notes += found.notes
        self.classes |= {f"in the file: {where}": names for where, names in classes_in(found.content)}
        self.settings |= settings_in(found.content)
        self._lightning |= found.lightning
        self._loaded = (self._loaded or {}) | found.tensors
        by_storage: dict[Any, list[str]] = {}
        for key, tensor in found.tensors.items():
            if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
                kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse or complex"
                raise CheckpointError(f"{self.path}: tensor '{key}' is {kind}; only plain dense tensors can be merged")
            if str(tensor.dtype).removeprefix("torch.") not in KNOWN:
                raise CheckpointError(f"{self.path}: tensor '{key}' has unsupported dtype {tensor.dtype}")
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
            if tensor.numel():
                by_storage.setdefault(place, []).append(key)
        self._tied_keys += [keys for keys in by_storage.values() if len(keys) > 1]
        return {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in found.tensors.items()}

    def _named(self, stored: Mapping[str, TensorInfo]) -> dict[str, str]:
        """Canonical name → stored name, without what wrappers of a module add."""
        names, notes = unwrapped(stored, str(self.path), lightning=self._lightning)
        self.notes += notes
        for name, key in names.items():
            if 0 in stored[key][0]:
                raise CheckpointError(
                    f"{self.path}: tensor '{name}' has no elements: one rank's part of a sharded model; put the parts "
                    "together first (zero_to_fp32.py of DeepSpeed, torch.distributed.checkpoint.format_utils of FSDP)"
                )
        canonical = {key: name for name, key in names.items()}
        self.ties = tuple(tuple(canonical[key] for key in group if key in canonical) for group in self._tied_keys)
        return names

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU.

        Raises:
            CheckpointError: the file's bytes for it cannot be read.
        """
        key = self._stored[name]
        if self._loaded is not None and key in self._loaded:
            return self._loaded[key]
        path, _ = self._places[key]
        try:
            with self._lock:
                if path not in self._readers:
                    self._check_unchanged(path)
                    with readable_name(path) as name_:
                        self._readers[path] = safe_open(name_, framework="pt")
            tensor: Tensor = self._readers[path].get_tensor(key)
        except CheckpointError:
            raise
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: tensor '{name}' cannot be read ({error})") from None
        return tensor

    def read_bytes(self, name: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes; safetensors by positioned reads, so that no map grows.

        Args:
            name: of the tensor.
            offset: in bytes from its beginning.
            into: is filled.

        Raises:
            CheckpointError: the file has changed or cannot be read.
        """
        key = self._stored[name]
        if self._loaded is not None and key in self._loaded:
            import torch

            flat = self._loaded[key].contiguous().reshape(-1).view(torch.uint8)
            np.copyto(np.asarray(into), flat[offset : offset + len(into)].numpy())
            return
        path, begin = self._places[key]
        try:
            with self._lock:
                if path not in self._handles:
                    self._check_unchanged(path)
                    self._handles[path] = os.open(path, os.O_RDONLY)
        except OSError as error:  # gone meanwhile, or one file too many
            raise CheckpointError(f"{self.path} cannot be read ({reason_of(error)})") from None
        done = 0
        while done < len(into):
            try:
                count = os.preadv(self._handles[path], [into[done:]], begin + offset + done)
            except OSError as error:
                raise CheckpointError(f"{path}: tensor '{name}' cannot be read ({error.strerror})") from None
            if count == 0:
                raise CheckpointError(f"{path}: ends within tensor '{name}'; it has changed since it was opened")
            done += count

    def check_unchanged(self) -> None:
        """Raises CheckpointError where a file was replaced or written to since it was opened."""
        for path in self._states:
            self._check_unchanged(path)

    def _check_unchanged(self, path: Path) -> None:
        try:
            same = _state(path) == self._states[path]
        except OSError:  # it is gone
            same = False
        if not same:
            raise CheckpointError(f"{path}: has changed since it was opened; start again")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # the module may be gone when Python ends
        for handle in getattr(self, "_handles", {}).values():
            close(handle)

    @functools.cached_property
    def extras(self) -> tuple[Path, ...]:
        """Small files that belong to the model, such as configuration and tokenizer (see :func:`companions`)."""
        return companions(self.path).files

    def load(self) -> dict[str, Tensor]:
        """The whole state dict, in the file's order."""
        return {name: self.read(name) for name in self.tensors}

    @functools.cached_property
    def hash(self) -> str:
        """Content hash (see :func:`content_hash`); the file is read once for it.

        Raises:
            CheckpointError: a floating-point tensor with NaN or infinite values (found on the same read).
        """
        return content_hash(_Finite(self))


class _Finite(Mapping[str, "Tensor"]):
    """A checkpoint's tensors, read on access and refused where they hold NaN or infinite values."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._checkpoint.read(name)
        if not has_only_finite(tensor):
            raise CheckpointError(
                f"{self._checkpoint.path}: tensor '{name}' holds NaN or infinite values; leave this checkpoint out"
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint.tensors)

    def __len__(self) -> int:
        return len(self._checkpoint.tensors)


def stem(path: Path) -> str:
    """A file's name without the suffix of a checkpoint, ``.pth.tar`` being one."""
    name = path.name.removesuffix(".tar") if path.name.endswith((".pt.tar", ".pth.tar")) else path.name
    return Path(name).stem if Path(name).suffix in (*SUFFIXES, path.suffix) else name


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: pickles may hold halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

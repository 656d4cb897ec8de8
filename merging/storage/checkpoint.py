"""One state dict on disk, opened lazily: safetensors by map, ``.pt`` with ``weights_only=True``, one file or shards.

Wrappers (``{"state_dict": …}``) and prefixes (``module.``, ``_orig_mod.``) are undone and said.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from merging.errors import CheckpointError, reason_of, showable
from merging.storage.content import content_hash, has_only_finite
from merging.storage.dtypes import SAFETENSORS
from merging.storage.model_folder import COMPANIONS, INDEX_SUFFIX, SMALL, SUFFIXES, files_of, is_transformers
from merging.storage.pickle_file import WRAPPERS, is_old_format
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")


class Checkpoint:
    """A state dict on disk.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``; the index of a sharded one
            (``*.index.json``); or a folder with one of these, as Hugging Face's libraries save it.
        name: how it is called in recipes and reports; default: the file's name without its suffix, or the folder's.

    Attributes:
        files: where the tensors are.
        tensors: name → (shape, dtype name), names without wrappers and prefixes, in the file's order.
        ties: groups of names that share one storage (only ``.pt`` files can say so).
        notes: what was unwrapped or ignored.

    Raises:
        CheckpointError: the file cannot be read, holds no tensors, or is a pickle that wants to run code.
    """

    def __init__(self, path: Path | str, name: str = "") -> None:
        self.path = Path(path)
        self.path = self.path.parent if self.path.name.endswith(INDEX_SUFFIX) else self.path
        self.name = showable(name or (self.path.resolve().name if self.path.is_dir() else self.path.stem))
        self.notes: tuple[str, ...] = ()
        self.ties: tuple[tuple[str, ...], ...] = ()
        if not self.path.exists():
            raise CheckpointError(f"no such checkpoint: {self.path}")
        self.files, expected = files_of(self.path)
        self._places: dict[str, tuple[Path, int]] = {}  # key → file and offset of its bytes there
        self._states: dict[Path, tuple[int, ...]] = {}  # file → what tells that it was replaced
        self._readers: dict[Path, Any] = {}
        self._handles: dict[Path, int] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._lock = threading.Lock()
        stored: dict[str, TensorInfo] = {}
        for file in self.files:
            stored |= self._open_safetensors(file) if file.suffix == ".safetensors" else self._open_pickle(file)
        lost = [key for key in expected if key not in stored]
        if lost:
            raise CheckpointError(f"{self.path}: the index names tensor '{lost[0]}', which no shard holds")
        self._stored = self._strip_prefixes(stored)
        torn = next((name for name in self._stored if not name.isascii() and not _is_text(name)), None)
        if torn is not None:
            raise CheckpointError(f"{self.path}: the name of tensor '{torn}' is no text; rename it and save again")
        self.tensors: dict[str, TensorInfo] = {name: stored[key] for name, key in self._stored.items()}

    def _open_safetensors(self, path: Path) -> dict[str, TensorInfo]:
        try:
            self._states[path] = _state(path)
            opened: Any = safe_open(path, framework="np")  # for the header, which needs no torch
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            with path.open("rb") as file:  # valid: it was just opened
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened ({reason_of(error)})") from None
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: not a valid safetensors file ({error}); save it again") from None
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

        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises whatever the bytes provoke; each is a bad file
            if "weights_only" in str(error) or "Unsupported" in str(error):
                why = "it is a pickle that wants to run code, not a plain state dict; save model.state_dict() instead"
            elif "mmap" in str(error) and is_old_format(path):
                why = "it is in torch's old format; load it and save it again with torch.save"
            else:
                why = f"torch.load cannot read it ({type(error).__name__}); save it again"
            raise CheckpointError(f"{path}: {why}") from None
        state = self._unwrap(content)
        self._loaded = (self._loaded or {}) | state
        by_storage: dict[Any, list[str]] = {}
        for key, tensor in state.items():
            if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
                kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse or complex"
                raise CheckpointError(f"{self.path}: tensor '{key}' is {kind}; only plain dense tensors can be merged")
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
            if tensor.numel():
                by_storage.setdefault(place, []).append(key)
        self._tied_keys = getattr(self, "_tied_keys", []) + [keys for keys in by_storage.values() if len(keys) > 1]
        return {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in state.items()}

    def _unwrap(self, content: Any) -> dict[str, Tensor]:
        """Goes down through known wrappers until a mapping of tensors is reached."""
        from torch import Tensor

        seen: list[str] = []
        while isinstance(content, Mapping) and len(seen) < 4:
            tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
            inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
            if not inner and tensors:
                other = [str(key) for key in content if str(key) not in tensors]
                if seen:
                    self.notes += (f"state dict found under '{'.'.join(seen)}'",)
                if other:
                    self.notes += (f"ignored what is not a tensor: {', '.join(other[:5])}",)
                return tensors
            if not inner:
                break
            if len(inner) > 1:
                self.notes += (f"took '{inner[0]}'; there is also {', '.join(repr(k) for k in inner[1:])}",)
            seen.append(inner[0])
            content = content[inner[0]]
        keys = f"; its keys: {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise CheckpointError(f"{self.path}: holds no state dict (looked under {', '.join(WRAPPERS[:3])}, ema){keys}")

    def _strip_prefixes(self, stored: Mapping[str, TensorInfo]) -> dict[str, str]:
        """Canonical name → stored name: prefixes that every key carries are taken off."""
        names = {key: key for key in stored}
        while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in names)), None):
            names = {name.removeprefix(prefix): key for name, key in names.items()}
            self.notes += (f"prefix '{prefix}' removed",)
        if self._loaded is not None:
            canonical = {key: name for name, key in names.items()}
            self.ties = tuple(tuple(canonical[key] for key in group) for group in self._tied_keys)
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
                    self._readers[path] = safe_open(path, framework="pt")
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

    def _check_unchanged(self, path: Path) -> None:
        if _state(path) != self._states[path]:
            raise CheckpointError(f"{path}: has changed since it was opened; start again")

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    @functools.cached_property
    def extras(self) -> tuple[Path, ...]:
        """Small files that belong to the model, such as configuration and tokenizer.

        Of a folder they are all that is not ours; beside a single file those of transformers, where its ``config.json``
        is there.
        """
        if not self.path.is_dir():
            beside = [self.path.parent / name for name in COMPANIONS]
            return tuple(file for file in beside if file.is_file()) if is_transformers(beside[0]) else ()
        ours = ("report.json", "recipe.json", "README.md", "events.jsonl", "overrides.safetensors")
        return tuple(
            file
            for file in sorted(self.path.iterdir())
            if file.is_file()
            and not file.name.startswith(".")
            and file.name not in ours
            and file.suffix not in SUFFIXES
            and not file.name.endswith(INDEX_SUFFIX)
            and file.stat().st_size <= SMALL
        )

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

"""One state dict on disk, opened lazily: safetensors by map, ``.pt`` with ``weights_only=True``.

Wrappers (``{"state_dict": …}``) and prefixes (``module.``, ``_orig_mod.``) are undone and said.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from torch import Tensor

from merging.errors import CheckpointError
from merging.partition import TensorInfo

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "ema", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "_orig_mod.")

_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class Checkpoint:
    """A state dict on disk.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``.
        name: how it is called in recipes and reports; default: the file's name without its suffix.

    Attributes:
        tensors: name → (shape, dtype name), names without wrappers and prefixes, in the file's order.
        ties: groups of names that share one storage (only ``.pt`` files can say so).
        notes: what was unwrapped or ignored.

    Raises:
        CheckpointError: the file cannot be read, holds no tensors, or is a pickle that wants to run code.
    """

    def __init__(self, path: Path | str, name: str = "") -> None:
        self.path = Path(path)
        self.name = name or self.path.stem
        self.notes: tuple[str, ...] = ()
        self.ties: tuple[tuple[str, ...], ...] = ()
        if not self.path.is_file():
            raise CheckpointError(f"no such checkpoint: {self.path}")
        stored = self._open_safetensors() if self.path.suffix == ".safetensors" else self._open_pickle()
        self._stored = self._strip_prefixes(stored)
        self.tensors: dict[str, TensorInfo] = {name: stored[key] for name, key in self._stored.items()}

    def _open_safetensors(self) -> dict[str, TensorInfo]:
        try:
            self._file: Any = safe_open(self.path, framework="pt")
            slices = {key: self._file.get_slice(key) for key in self._file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: not a valid safetensors file ({error}); save it again") from None
        found: dict[str, TensorInfo] = {}
        for key, part in slices.items():
            dtype = _SAFETENSORS_DTYPES.get(part.get_dtype())
            if dtype is None:
                raise CheckpointError(f"{self.path}: tensor '{key}' has unsupported dtype {part.get_dtype()}")
            found[key] = (tuple(part.get_shape()), dtype)
        if not found:
            raise CheckpointError(f"{self.path}: holds no tensors")
        self._loaded: Mapping[str, Tensor] | None = None
        return found

    def _open_pickle(self) -> dict[str, TensorInfo]:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises whatever the bytes provoke; each is a bad file
            if "weights_only" in str(error) or "Unsupported" in str(error):
                why = "it is a pickle that wants to run code, not a plain state dict; save model.state_dict() instead"
            elif "mmap" in str(error):
                why = "it is in torch's old format; load it and save it again with torch.save"
            else:
                why = f"torch.load cannot read it ({type(error).__name__}); save it again"
            raise CheckpointError(f"{self.path}: {why}") from None
        state = self._unwrap(content)
        self._loaded = state
        by_storage: dict[Any, list[str]] = {}
        for key, tensor in state.items():
            if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
                kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse or complex"
                raise CheckpointError(f"{self.path}: tensor '{key}' is {kind}; only plain dense tensors can be merged")
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
            if tensor.numel():
                by_storage.setdefault(place, []).append(key)
        self._tied_keys = [keys for keys in by_storage.values() if len(keys) > 1]
        return {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in state.items()}

    def _unwrap(self, content: Any) -> dict[str, Tensor]:
        """Goes down through known wrappers until a mapping of tensors is reached."""
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
        try:
            tensor: Tensor = self._file.get_tensor(key) if self._loaded is None else self._loaded[key]
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: tensor '{name}' cannot be read ({error})") from None
        return tensor

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


class _Finite(Mapping[str, Tensor]):
    """A checkpoint's tensors, read on access and refused where they hold NaN or infinite values."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._checkpoint.read(name)
        # isfinite knows no fp8; float64 must not pass through float32, where 1e300 would be infinite
        wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
        if tensor.is_floating_point() and not torch.isfinite(wide).all():
            raise CheckpointError(
                f"{self._checkpoint.path}: tensor '{name}' holds NaN or infinite values; leave this checkpoint out"
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint.tensors)

    def __len__(self) -> int:
        return len(self._checkpoint.tensors)


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE3 over sorted (name, dtype, shape, bytes): the same for the same weights in any file format."""
    digest = blake3()
    for name in sorted(tensors):
        tensor = tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

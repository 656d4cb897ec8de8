"""Files of ``torch.save``, loaded without running code."""

from __future__ import annotations

import argparse
import pickletools
import types
import zipfile
from pathlib import Path
from typing import Any

from merging.errors import CheckpointError
from merging.storage.pickled_arrays import UNFIT, Array, Dtype, array, no_bytes, scalar
from merging.storage.tensor_file import readable_name

OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what ``torch.save`` wrote before PyTorch 1.6: a pickled magic number."""


def load(path: Path) -> Any:
    """Reads all that is in a file, its tensors by memory map.

    Args:
        path: written by ``torch.save``.

    Raises:
        CheckpointError: the file wants to run code, asks for memory by a number, or is damaged.
    """
    import torch

    _check_pickle(path)
    with torch.serialization.safe_globals(_harmless()), readable_name(path) as name:
        try:
            return torch.load(name, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises whatever the bytes provoke; each is a bad file
            raise CheckpointError(f"{path}: {_reason(path, error)}") from None


def _harmless() -> list[Any]:
    """Lists classes that hold values and do nothing when they are made: what is kept beside the weights."""
    import datetime
    import decimal
    import pathlib

    plain = (
        argparse.Namespace,
        types.SimpleNamespace,
        decimal.Decimal,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        pathlib.PurePath,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        frozenset,
        slice,
        list,
        dict,
        int,
        float,
        bool,
    )
    # torch's unpickler fills dicts and lists only; these two are taken for what they hold.
    filled: list[tuple[Any, str]] = [(_as_dict, "collections.defaultdict"), (_as_list, "collections.deque")]
    # A path of another system cannot be made here, and nobody opens it.
    paths: list[tuple[type, str]] = [(pathlib.PurePosixPath, f"pathlib.{name}") for name in ("PosixPath", "Path")]
    paths += [(pathlib.PureWindowsPath, "pathlib.WindowsPath")]
    paths += [(kind, f"pathlib._local.{name.partition('.')[2]}") for kind, name in paths]  # Python 3.13
    # Of NumPy nothing is called by a pickle: see pickled_arrays.
    numbers: list[tuple[Any, str]] = [(Array, "numpy.ndarray"), (Dtype, "numpy.dtype"), (no_bytes, "builtins.bytes")]
    for core in ("core", "_core"):
        numbers += [(scalar, f"numpy.{core}.multiarray.scalar"), (array, f"numpy.{core}.multiarray._reconstruct")]
    named = [(dict, f"{package}.utilities.data.AttributeDict") for package in ("lightning.fabric", "lightning_fabric")]
    return [*plain, *numbers, *paths, *named, *filled]


def _as_dict(*factory: Any) -> dict[Any, Any]:
    del factory
    return {}


def _as_list(items: Any = (), maxlen: int | None = None) -> list[Any]:
    del maxlen
    return list(items)


def _check_pickle(path: Path) -> None:
    """Refuses a pickle that asks for memory by a number alone: ``bytearray(5_000_000_000)`` takes twenty bytes.

    Raises:
        CheckpointError: it does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
            asks = any(b"bytearray" in content and _asks_for_bytes(content) for content in pickles)
    except Exception:  # no zip, or damaged, which raises what the bytes provoke: torch.load says what it is
        return
    if asks:
        raise CheckpointError(f"{path}: holds a bytearray, which no state dict needs; save the state dict alone")


def _asks_for_bytes(content: bytes) -> bool:
    try:
        asked = {argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)}
    except ValueError:  # damaged: torch.load says so
        return False
    return bool(asked & {"bytearray", "builtins bytearray", "__builtin__ bytearray"})


def _reason(path: Path, error: Exception) -> str:
    """Says why ``torch.load`` gave up."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    said = str(error)
    if "mmap" in said and is_old_format(path):
        return "it is in torch's old format; load it and save it again with torch.save"
    if UNFIT in said:
        return f"it is a pickle with {UNFIT}; save model.state_dict() instead"
    if "weights_only" in said or "Unsupported" in said:
        try:
            known = {
                f"{item.__module__}.{item.__qualname__}" if not isinstance(item, tuple) else item[1]
                for item in _harmless()
            }
            wanted = [name for name in get_unsafe_globals_in_checkpoint(path) if name not in known]
        except Exception:  # the scan of damaged bytes raises as the load did
            wanted = []
        what = f" (of {', '.join(wanted[:3])}{', …' if len(wanted) > 3 else ''})" if wanted else ""
        return f"it is a pickle that wants to run code{what}, not a plain state dict; save model.state_dict() instead"
    if not zipfile.is_zipfile(path):
        return "it is a plain pickle, not a file of torch.save; load it with its own program and save the state dict"
    return f"torch.load cannot read it ({type(error).__name__}); save it again"


def is_old_format(path: Path) -> bool:
    """Whether PyTorch before 1.6 wrote the file: such a file cannot be mapped."""
    with path.open("rb") as file:
        return file.read(len(OLD_MAGIC)) == OLD_MAGIC

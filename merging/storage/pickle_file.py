"""Files of ``torch.save``: loaded without running code, and the state dict found in what a training program wrote."""

from __future__ import annotations

from pathlib import Path

from merging.errors import CheckpointError
from merging.storage.file_kind import readable_name
from merging.storage.state_dict import Found, _chosen
from merging.storage.unpickling import _check_pickle, _harmless, _reason

_LARGER = 8
_ROOM = 64 << 20
"""Tensors may be so many times the file's bytes (shared storages), and so many bytes more (small expanded buffers)."""


def load(path: Path, key: str = "") -> Found:
    """Reads a file by memory map, without running code, and finds its state dict.

    Args:
        path: written by ``torch.save``.
        key: of the mapping that is the state dict, dotted where it is nested, such as ``state_dict_ema``; empty: the
            only mapping of tensors there is.

    Raises:
        CheckpointError: the file wants to run code, is larger in memory than on disk, holds no state dict, or several
            of which none was chosen.
    """
    import torch

    _check_pickle(path)
    with torch.serialization.safe_globals(_harmless()), readable_name(path) as name:
        try:
            content = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises whatever the bytes provoke; each is a bad file
            raise CheckpointError(f"{path}: {_reason(path, error)}") from None
    found = _chosen(path, content, key)
    size = sum(tensor.numel() * tensor.element_size() for tensor in found.tensors.values())
    if size > _LARGER * path.stat().st_size + _ROOM:
        raise CheckpointError(
            f"{path}: its tensors would take {size / 1e9:,.1f} GB, the file has {path.stat().st_size:,} bytes; save "
            "them with .contiguous()"
        )
    return found

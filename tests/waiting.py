"""Whatever waits for a GPU raises for a while."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    """Has torch raise where something waits for the CUDA device; afterwards waiting is as it was."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():  # torch says once that this is a prototype, after it has switched it on
            warnings.simplefilter("ignore", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)

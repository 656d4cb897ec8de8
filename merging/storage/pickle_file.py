"""What ``torch.save`` wrote: the format before 1.6, and wrappers around the state dict."""

from __future__ import annotations

from pathlib import Path

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "ema", "state_dict_ema", "model_ema")
OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what ``torch.save`` wrote before PyTorch 1.6: a pickled magic number."""


def is_old_format(path: Path) -> bool:
    """Whether PyTorch before 1.6 wrote the file: such a file cannot be mapped."""
    with path.open("rb") as file:
        return file.read(len(OLD_MAGIC)) == OLD_MAGIC

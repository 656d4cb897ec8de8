"""A form of data in one file: ``merge run --plugin examples/torch_file.py``, with ``held_out = "set.pt"`` in [task]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

import merging
from merging.plugins.registry import forms


@forms.register("torch-file")
@dataclass(frozen=True)
class TorchFile(merging.DataForm):
    """A dict with ``images``, uint8 (N, H, W, 3), ``labels``, and ``classes``, their names."""

    summary: ClassVar[str] = "a .pt with images, labels and the names of the classes"
    written: ClassVar[str] = "a .pt of images and labels"
    suffixes: ClassVar[tuple[str, ...]] = (".pt",)

    def open(self, reader: merging.Reader) -> merging.Opened:
        """Reads the whole file; nothing in it is run."""
        file = Path(reader.path).expanduser()
        if not file.is_file():
            raise merging.TaskError(f"no such file: {file}")
        found = torch.load(file, weights_only=True)
        return reader.samples(merging.Split.of(found["images"], found["labels"]), names=tuple(found["classes"]))

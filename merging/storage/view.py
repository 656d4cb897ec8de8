"""What is no file of its own: a model that is made of others as it is read, behind what a file of tensors can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from merging.storage.dtypes import size_of
from merging.storage.file_hashes import Stamp
from merging.storage.raw import Raw, as_tensor
from merging.storage.tensor_file import TensorFile

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.checkpoint import Checkpoint


class View(TensorFile):
    """The base of views: recognises no file, and puts whole tensors together from their bytes."""

    suffixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Recognises no file: it is made of what was opened."""
        del path, head
        return False

    def made(self, key: str) -> Tensor:
        """Makes one tensor of the bytes that :meth:`read_bytes` gives."""
        shape, dtype = self.tensors[key]
        raw: Raw = np.empty(size_of((shape, dtype)), dtype=np.uint8)
        self.read_bytes(key, 0, raw.data)
        return as_tensor(raw, dtype).view(shape)


class ModelView(View):
    """The base of views of one model: its files, and whatever they say beside the tensors.

    Args:
        model: the model.

    Attributes:
        model: the model as it is.
    """

    def __init__(self, model: Checkpoint) -> None:
        self.model = model
        super().__init__(model.path)
        self.ties, self.notes = model.ties, model.notes
        self.settings, self.trained, self.classes = model.settings, model.trained, model.classes

    @property
    def files(self) -> tuple[Path, ...]:
        """The model's own files."""
        return self.model.files

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about its files from before they were opened."""
        return self.model.stamps

    def state(self) -> tuple[int, ...]:
        """Is always the same: the model looks after its files itself, where it has any."""
        return ()

    def check_unchanged(self) -> None:
        """Raises CheckpointError where the model was replaced or written to since it was opened."""
        self.model.check_unchanged()

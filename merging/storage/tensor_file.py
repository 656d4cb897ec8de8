"""What a file of tensors can do, in whatever format it was written.

A new format is one file, ``NAME_file.py``, beside this one: it is found, and its suffixes are looked for, by that.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from merging.errors import CheckpointError, NameTakenError, reason_of
from merging.storage.file_hashes import Stamp
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.class_names import Names


class TensorFile(ABC):
    """One file of tensors, opened: its header is known, its tensors are read when they are asked for.

    A format derives from this, is decorated with :func:`file_format`, and opens the file when it is made: it fills
    ``tensors`` and whatever else the file says. Tensors go by their keys here, the names as they are stored;
    :class:`merging.storage.checkpoint.Checkpoint` knows them by the model's own names, and says these in errors.
    Several threads may read at once.

    Args:
        path: the file, which is there.
        key: key of the state dict in a file with several; empty where none was chosen, or a format is not ``keyed``.

    Attributes:
        format: name of the format in messages.
        suffixes: suffixes that files of this format have.
        safe: whether reading such a file can run no code of its writer: where a folder holds one model in several
            formats, a safe one is read.
        keyed: whether a file may hold several state dicts.
        path: the file.
        tensors: key → (shape, dtype name), in the file's order.
        notes: what was left out or chosen.
        ties: groups of keys that share one storage, in formats that can say so.
        lightning: whether Lightning wrote the file, which puts ``model.`` before every name.
        settings: settings of the model that stand in the file: dotted name → value.
        trained: hyper-parameters of its training that stand there, under short names.
        classes: classes that stand in the file beside the tensors: where → index → name.
        stamp: what the file was before it was opened; None where there is no file.

    Raises:
        CheckpointError: the file cannot be opened, or holds no tensors that can be merged.
    """

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    safe: ClassVar[bool] = True
    keyed: ClassVar[bool] = False

    def __init__(self, path: Path, key: str = "") -> None:
        del key  # for formats that are keyed
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.notes: tuple[str, ...] = ()
        self.ties: tuple[tuple[str, ...], ...] = ()
        self.lightning = False
        self.settings: dict[str, Any] = {}
        self.trained: dict[str, str | float | int | bool] = {}
        self.classes: dict[str, Names] = {}
        try:
            self.stamp = Stamp.of(path) if path.exists() else None
            self._state = self.state()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened ({reason_of(error)})") from None

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Whether a file is of this format, by its content: its name may be any.

        Args:
            path: the file.
            head: its first 4096 bytes, or fewer where it is shorter.

        Raises:
            OSError: the file cannot be read.
        """

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Reads one tensor to the CPU.

        Raises:
            CheckpointError: the file has changed since it was opened.
            OSError, ValueError: its bytes cannot be read.
        """

    @abstractmethod
    def read_bytes(self, key: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes, in the order of its elements.

        Args:
            key: key of the tensor.
            offset: bytes from the tensor's beginning.
            into: the buffer that is filled.

        Raises:
            CheckpointError: the file has changed since it was opened, or cannot be opened again.
            EOFError: the file ends within the tensor.
            OSError: its bytes cannot be read.
        """

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return (self.path,)

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about these files from before they were opened; none where no hash can be remembered of them."""
        return () if self.stamp is None else (self.stamp,)

    def state(self) -> tuple[int, ...]:
        """Gives what changes when the file is replaced or written to.

        Raises:
            OSError: it is gone.
        """
        found = self.path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raises CheckpointError where the file was replaced or written to since it was opened."""
        try:
            same = self.state() == self._state
        except OSError:  # it is gone
            same = False
        if not same:
            raise CheckpointError(f"{self.path}: has changed since it was opened; start again")


FORMATS: list[type[TensorFile]] = []
"""The formats that can be read, the safe ones first."""

Format = TypeVar("Format", bound=type[TensorFile])


def file_format(kind: Format) -> Format:
    """Registers a format: files that it recognises are checkpoints from now on.

    Raises:
        NameTakenError: another format has its name or one of its suffixes.
    """
    for other in FORMATS:
        taken = {other.format, *other.suffixes} & {kind.format, *kind.suffixes}
        if taken:
            raise NameTakenError(f"there is a format of files '{min(taken)}' already: {other.__name__}")
    FORMATS.append(kind)
    FORMATS.sort(key=lambda known: not known.safe)
    return kind


@contextlib.contextmanager
def readable_name(path: Path) -> Iterator[str]:
    """Gives a name under which libraries that know UTF-8 only can open a file, whatever bytes its own name has.

    Raises:
        CheckpointError: there is none on this system.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        handle = os.open(path, os.O_RDONLY)
        try:
            if not os.path.exists(f"/proc/self/fd/{handle}"):
                raise CheckpointError(f"{path}: its name is no UTF-8; rename the file") from None
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        yield name

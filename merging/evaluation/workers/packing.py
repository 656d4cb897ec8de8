"""Values as bytes for another process, in which merges, models and tensors are named instead of copied."""

from __future__ import annotations

import io
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
from blake3 import blake3
from torch import Tensor

from merging.evaluation.workers.blobs import LARGE, Blob, Blobs
from merging.plugins.discovery import needed
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.recipe import Ingredient, Recipe, Weights

WEIGHTS = (Recipe, Weights)
"""Kinds of merges that are sent once, as definitions, and named by their hash from then on."""


@dataclass(frozen=True)
class Packed:
    """A value as bytes, the names of the definitions that must be there before they can be read, and its files."""

    data: bytes
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Packer:
    """Turns values into bytes: pool, partition and rows are the receiver's own, merges are names, tensors are files.

    Functions that no import finds there, such as those of a script or of a file of plug-ins, travel as they are.

    Args:
        blobs: takes large tensors.
        large: bytes from which on a tensor is one.
        pool: the models, where the receiver has them.
        partition: their components, where the receiver has them.
        rows: their rows in recipes, and after them that of the base.

    Attributes:
        definitions: name → bytes of every merge that was named, but for those that were forgotten.
        kept: digests of files that stay, whatever is forgotten: those of the world.
    """

    def __init__(
        self,
        blobs: Blobs,
        large: int = LARGE,
        pool: ModelPool | None = None,
        partition: Partition | None = None,
        rows: Sequence[Ingredient] = (),
    ) -> None:
        self.pool, self.partition, self.blobs, self.large = pool, partition, blobs, large
        self.rows = {row: place for place, row in enumerate(rows)}
        self.definitions: dict[str, Packed] = {}
        self.kept: frozenset[str] = frozenset()
        self._names: WeakKeyDictionary[Recipe | Weights, str] = WeakKeyDictionary()

    def pack(self, value: Any) -> Packed:
        """The value as bytes.

        Raises:
            TypeError: something in it belongs to this process, such as an open file.
        """
        out = io.BytesIO()
        pickler = _Pickler(out, self)
        try:
            pickler.dump(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(str(error)) from None
        return Packed(out.getvalue(), tuple(pickler.used), tuple(pickler.files))

    def forget(self, name: str) -> tuple[str, ...]:
        """Forgets a merge, and removes its files but for those that another one has too; gives their digests."""
        gone = self.definitions.pop(name).files
        others = {file for packed in self.definitions.values() for file in packed.files}
        gone = tuple(file for file in gone if file not in others and file not in self.kept)
        for merged, its in list(self._names.items()):
            if its == name:
                del self._names[merged]
        self.blobs.drop(gone)
        return gone

    def name(self, merged: Recipe | Weights) -> str:
        """The name of a merge: the hash of what it is."""
        if merged not in self._names:
            whole = self.pack([type(merged), {field.name: getattr(merged, field.name) for field in fields(merged)}])
            data = zlib.compress(whole.data, 1)  # the table of an average is one number, many times
            name = blake3(data).hexdigest()[:32]
            self.definitions[name] = Packed(data, whole.names, whole.files)
            self._names[merged] = name
        return self._names[merged]


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """A pickler that names what the receiver has."""

    def __init__(self, out: io.BytesIO, packer: Packer) -> None:
        super().__init__(out, protocol=pickle.HIGHEST_PROTOCOL)
        self._packer, self.used, self.files = packer, dict[str, None](), dict[str, None]()

    def persistent_id(self, value: Any) -> Any:
        """What stands for a value; None: it is copied."""
        packer = self._packer
        if isinstance(value, Partition) and value is packer.partition:
            return ("partition",)
        if isinstance(value, ModelPool) and value is packer.pool:
            return ("pool",)
        if isinstance(value, Ingredient) and value in packer.rows:
            return "row", packer.rows[value]
        if isinstance(value, WEIGHTS):
            name = packer.name(value)
            self.used[name] = None
            return "merge", name
        if isinstance(value, Tensor) and value.nbytes >= packer.large and packer.blobs.home is not None:
            blob = packer.blobs.keep(value)
            self.files[blob.digest] = None
            return "blob", tuple(blob)
        if isinstance(value, Checkpoint | ModelPool):
            raise TypeError("models of another pool cannot be sent")
        return None


class Unpacker:
    """Reads what a :class:`Packer` has made, in another process.

    Args:
        blobs: finds large tensors.
        pool: the models, where the sender has named them.
        partition: their components.
        rows: their rows in recipes, and after them that of the base.
    """

    def __init__(
        self,
        blobs: Blobs,
        pool: ModelPool | None = None,
        partition: Partition | None = None,
        rows: Sequence[Ingredient] = (),
    ) -> None:
        self.blobs, self.pool, self.partition, self.rows = blobs, pool, partition, rows
        self._merges: dict[str, Recipe | Weights | bytes] = {}

    def define(self, name: str, data: bytes) -> None:
        """Takes the definition of a merge; what it is made of must have been defined before it is asked for."""
        self._merges.setdefault(name, data)

    def forget(self, name: str) -> None:
        """Forgets a merge, and with it what it has mapped into memory."""
        self._merges.pop(name, None)

    def unpack(self, data: bytes) -> Any:
        """Reads a value again.

        Raises:
            LackingError: a file of a tensor is not on this machine.
        """
        with needed():
            return _Unpickler(io.BytesIO(data), self).load()

    def merge(self, name: str) -> Recipe | Weights:
        """A merge by its name; always the same object, by which the live model knows that it is there."""
        found = self._merges[name]
        if isinstance(found, bytes):
            kind, values = self.unpack(zlib.decompress(found))
            found = self._merges[name] = kind(**values)
        return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: io.BytesIO, unpacker: Unpacker) -> None:
        super().__init__(data)
        self._unpacker = unpacker

    def persistent_load(self, key: Any) -> Any:
        """What a name stands for."""
        kind, *what = key
        match kind:
            case "partition":
                return self._unpacker.partition
            case "pool":
                return self._unpacker.pool
            case "row":
                return self._unpacker.rows[what[0]]
            case "merge":
                return self._unpacker.merge(what[0])
            case "blob":
                return self._unpacker.blobs.open(Blob(*what[0]))
        raise pickle.UnpicklingError(f"nothing is called {kind!r}")

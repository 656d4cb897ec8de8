"""A pool as a description that another process opens: by path, and what lies in memory by its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.values.recipe import Ingredient

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Model:
    """A checkpoint: where it lies, or its tensors; ``base`` is that of an adapter."""

    name: str
    path: Path
    key: str = ""
    base: Model | None = None
    tensors: dict[str, Tensor] | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Model:
        """Describes a checkpoint as it is, through whatever it is seen."""
        plain = checkpoint.as_stored
        plain = plain if plain.aligned is None else plain.aligned.model
        plain = plain.as_stored
        if plain.in_memory:
            return cls(plain.name, plain.path, tensors=plain.load())
        base = None if plain.adapted is None else cls.of(plain.adapted.base)
        return cls(plain.name, plain.path.absolute(), plain.key, base)

    def open(self) -> Checkpoint:
        """Opens it.

        Raises:
            CheckpointError: it is not there, or cannot be read.
        """
        if self.tensors is not None:
            return Checkpoint.of(self.tensors, self.name)
        return Checkpoint(self.path, self.name, self.key, None if self.base is None else self.base.open())


@dataclass(frozen=True)
class Models:
    """A pool: its models and base, how they are seen, and the rows that they are in recipes."""

    models: tuple[Model, ...]
    base: Model | None
    seen: tuple[str | None, int | None]
    rows: tuple[Ingredient, ...]

    @classmethod
    def of(cls, pool: ModelPool) -> Models:
        """Describes a pool; every file has been read once, for the content hashes of its rows."""
        rows = (*pool.ingredients, *((pool.base_ingredient,) if pool.base is not None else ()))
        base = None if pool.base is None else Model.of(pool.base)
        return cls(tuple(map(Model.of, pool.checkpoints)), base, pool.vocabulary_asked, rows)

    def open(self, *, verify: bool) -> ModelPool:
        """Opens the pool.

        Args:
            verify: read every file and compare its content with what the rows say; otherwise that is believed, because
                the same files have just been read on the same machine.

        Raises:
            CheckpointError: a model is not there, or has another content than it has where the run was started.
        """
        source, multiple = self.seen
        base = None if self.base is None else self.base.open()
        pool = ModelPool(
            [model.open() for model in self.models], base, tokenizer_source=source, pad_to_multiple_of=multiple
        )
        if not verify:
            pool.expect(self.rows)
            return pool
        found = (*pool.ingredients, *((pool.base_ingredient,) if pool.base is not None else ()))
        for here, there, model in zip(found, self.rows, pool.with_base, strict=True):
            if here.hash != there.hash:
                raise CheckpointError(
                    f"{model.path} differs between machines: content {here.hash[:12]}… here, {there.hash[:12]}… where "
                    "the run was started; copy it anew, or name a file that all of them see"
                )
        return pool

"""A pool as a description that another process opens: by path, and what lies in memory by its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import CheckpointError
from merging.evaluation.workers.blobs import LackingError
from merging.evaluation.workers.sending import folder_for
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

    def place(self, own: Path) -> Path:
        """The path at which it lies: where it lay when the run was started, or where it was sent to."""
        if self.path.exists():
            return self.path
        return own / folder_for(self.path) / self.path.name

    def lacking(self, own: Path) -> list[str]:
        """The paths that are not on this machine: its own, and its base's."""
        if self.tensors is not None:
            return []
        return [*([] if self.place(own).exists() else [str(self.path)]), *(self.base.lacking(own) if self.base else [])]

    def open(self, own: Path) -> Checkpoint:
        """Opens the checkpoint here.

        Raises:
            CheckpointError: it cannot be read.
        """
        if self.tensors is not None:
            return Checkpoint.of(self.tensors, self.name)
        base = None if self.base is None else self.base.open(own)
        return Checkpoint(self.place(own), self.name, self.key, base)


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

    def open(self, own: Path, *, verify: bool) -> ModelPool:
        """Opens the pool here.

        Args:
            own: folder of this machine with models that were sent to it.
            verify: read every file and compare its content with what the rows say; otherwise that is believed, because
                the same files have just been read on the same machine.

        Raises:
            LackingError: a model is not there.
            CheckpointError: it has another content than it has where the run was started.
        """
        everybody = (*self.models, *((self.base,) if self.base is not None else ()))
        lacking = [path for model in everybody for path in model.lacking(own)]
        if lacking:
            raise LackingError(*dict.fromkeys(lacking))
        source, multiple = self.seen
        base = None if self.base is None else self.base.open(own)
        models = [model.open(own) for model in self.models]
        pool = ModelPool(models, base, tokenizer_source=source, pad_to_multiple_of=multiple)
        if not verify and all(model.tensors is not None or model.path.exists() for model in everybody):
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

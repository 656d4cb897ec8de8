"""Checkpoints as rows of a recipe: name, content hash, file; and from a row back to its checkpoint."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3

from merging.errors import RecipeError
from merging.storage.alignment import whereabouts
from merging.storage.checkpoint import Checkpoint
from merging.values.recipe import Aligned, Dtypes, Ingredient

UNREAD = "unread:"
"""Begins what stands for an ingredient's content hash until its file was read (see :meth:`Rows.postpone`)."""


class Rows:
    """The rows of a pool's checkpoints. A file is read once, when its row is first asked for.

    Args:
        models: the checkpoints of the pool, in its order.
        base: the model they were fine-tuned from, where known.
        dtypes: rows of the tensors that models hold in several: name, dtype of the sum, dtype of the result.
    """

    def __init__(self, models: Sequence[Checkpoint], base: Checkpoint | None, dtypes: Dtypes = ()) -> None:
        self._models, self._base, self._dtypes = tuple(models), base, dtypes
        self._by_hash: dict[str, Checkpoint] = {}
        self._hashes: dict[Checkpoint, str] = {}
        self._rows: dict[Checkpoint, Ingredient] = {}
        self._of_models: tuple[Ingredient, ...] | None = None
        self._postponed = False

    def postpone(self) -> None:
        """Lets files and times of change stand for content hashes, until :meth:`settle` brings these."""
        self._postponed = not self._hashes
        self._forget()

    def expect(self, rows: Iterable[Ingredient]) -> None:
        """Believes that the files of a recipe's ingredients still hold what they held, until they are read."""
        places = {(whereabouts(c), c.key): c for c in self._models if not c.in_memory}
        for row in rows:
            if (row.file, row.key) in places:
                self._by_hash[row.hash] = places[row.file, row.key]

    def settle(self, hashes: Mapping[Checkpoint, str]) -> None:
        """Takes content hashes that were found otherwise; the rows have them from now on."""
        self._postponed = False
        self._hashes |= hashes
        self._forget()

    def _forget(self) -> None:
        """Has the rows made again when they are next asked for: their hashes are others now."""
        self._rows, self._of_models = {}, None

    @property
    def of_models(self) -> tuple[Ingredient, ...]:
        """The models' rows, in order."""
        if self._of_models is None:
            if not self._postponed:
                with ThreadPoolExecutor(2) as threads:
                    unread = [c for c in self._models if c not in self._hashes]
                    told = [contextvars.copy_context() for _ in unread]  # threads begin without: what is remembered
                    found = threads.map(lambda context, c: context.run(lambda: c.hash), told, unread)
                    self._hashes |= dict(zip(unread, found, strict=True))
            self._of_models = tuple(self.of(checkpoint) for checkpoint in self._models)
        return self._of_models

    def of(self, checkpoint: Checkpoint) -> Ingredient:
        """Makes one checkpoint's row; reads its file where that was not done before."""
        if checkpoint not in self._rows:
            base = "" if checkpoint.adapted is None else whereabouts(checkpoint.adapted.base)
            facts = (checkpoint.name, self._hash(checkpoint), whereabouts(checkpoint), checkpoint.key, base)
            seen = None if checkpoint.aligned is None else checkpoint.aligned.alignment.record
            self._rows[checkpoint] = (
                Ingredient(*facts, dtypes=self._dtypes) if seen is None else Aligned(*facts, seen, dtypes=self._dtypes)
            )
        return self._rows[checkpoint]

    def _hash(self, checkpoint: Checkpoint) -> str:
        if self._postponed:
            state: list[object] = [id(checkpoint)] if checkpoint.in_memory else []
            state += [
                (checkpoint.key, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
                for file in checkpoint.files
            ]
            digest = UNREAD + blake3(repr(state).encode()).hexdigest()
        else:
            digest = self._hashes.get(checkpoint) or checkpoint.hash
            self._hashes[checkpoint] = digest
        self._by_hash.setdefault(digest, checkpoint)
        return digest

    def find(self, row: Ingredient) -> Checkpoint:
        """Finds the checkpoint with a row's content.

        Raises:
            RecipeError: no checkpoint has that content hash.
        """
        if row.hash not in self._by_hash:
            _ = self.of_models
            _ = self.of(self._base) if self._base is not None else None
        if row.hash not in self._by_hash:
            raise RecipeError(
                f"ingredient '{row.name}' (content {row.hash[:12]}…) is not among the checkpoints given: "
                "its file has changed or is missing; pass the original with `models`"
            )
        return self._by_hash[row.hash]

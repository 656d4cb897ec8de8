"""The pool: ordered checkpoints of one architecture, their agreement checked once."""

from __future__ import annotations

import functools
import math
import resource
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import PoolError, RecipeError
from merging.storage.agreement import check_agreement, constant, ties, untuned
from merging.storage.alignment import Alignment, whereabouts
from merging.storage.beside import differences
from merging.storage.checkpoint import Checkpoint
from merging.storage.class_order import agree_on_classes
from merging.storage.common_dtypes import in_common_dtypes, told
from merging.storage.dtypes import is_floating
from merging.storage.hub.spelling import PREFIX
from merging.storage.ingredients import opened
from merging.storage.rows import Rows
from merging.storage.sources import fetch, natural_key, place_of
from merging.values.partition import TensorInfo
from merging.values.recipe import Dtypes, Ingredient, Vocabulary
from merging.values.shown import Sheet, Shown, grid, named
from merging.values.wording import kind_of, plural

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.ingredients import Model, Models

SPARE_FILES = 64
"""Number of files that a process has open besides the models: libraries, streams, what is written."""


class ModelPool(Shown):
    """The checkpoints to merge, in the natural order of their names (model_2 before model_10).

    Args:
        models: one or more models, all with the same tensor names and shapes: checkpoints, files, folders and patterns,
            state dicts and modules in memory (see :func:`merging.storage.ingredients.opened`), one of these, a list of
            them, or a mapping from their names to them. Floating-point dtypes may differ: all are seen in one.
        base: the model they were fine-tuned from, where known.
        tokenizer_source: the vocabulary that all are seen in, where they have several: ``union``, ``base``, ``first``
            or a model's name; None: each in its own.
        pad_to_multiple_of: a number of which that of its rows is to be a multiple.

    Raises:
        PoolError: something is no model, or the checkpoints do not fit together, in tensors or in the order of their
            classes; both files are named.
        CheckpointError: a file is not a checkpoint, or a mapping no state dict.
    """

    def __init__(
        self,
        models: Models,
        base: Model | None = None,
        *,
        tokenizer_source: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        checkpoints, below = opened(models, base)
        self.base: Checkpoint | None = below
        if not checkpoints:
            beside = " besides the base" if base is not None else ""
            raise PoolError(f"no models given{beside}; a pool needs at least one checkpoint")
        self.checkpoints: tuple[Checkpoint, ...] = tuple(sorted(checkpoints, key=lambda c: natural_key(c.name)))
        self._see_in_common_dtypes()
        self._wanted = (tokenizer_source, pad_to_multiple_of)
        _check_asked(tokenizer_source, pad_to_multiple_of)
        if tokenizer_source is not None:
            self._align(tokenizer_source, pad_to_multiple_of)
        first = self.checkpoints[0]
        for other in self.with_base[1:]:
            check_agreement(first, other)
        names = [checkpoint.name for checkpoint in self.checkpoints]
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise PoolError(f"two checkpoints are called '{twice}'; give them different names")
        self._called = {c.name: c for c in self.checkpoints} | ({"the base": self.base} if self.base else {})
        self._classes = agree_on_classes(self._called)
        self._rows = Rows(self.checkpoints, self.base, self.dtypes)

    def _see_in_common_dtypes(self) -> None:
        """Has all models seen in dtypes that hold the numbers of each, where some hold the same tensors in others."""
        self.checkpoints = tuple(in_common_dtypes(self.checkpoints, self.with_base))
        self.base = None if self.base is None else next(in_common_dtypes([self.base], self.with_base))
        leader = self.base or self.checkpoints[0]
        self.dtypes: Dtypes = tuple(
            (name, leader.tensors[name][1], dtype)
            for name, (_, dtype) in leader.stored.items()
            if any(dtype != model.stored[name][1] for model in self.with_base if name in model.stored)
        )

    def _align(self, source: str, multiple: int | None) -> None:
        """Has all models seen in one vocabulary, where that is another view of them.

        Raises:
            PoolError: their tokenizers cannot be read, do not fit, or have no such vocabulary.
        """
        seen = next((c.name for c in self.with_base if c.aligned is not None), None)
        if seen is not None:
            raise PoolError(f"'{seen}' is seen in another vocabulary already; open the models anew")
        found = Alignment(self.checkpoints, self.base, (source, multiple))
        if found.changes:
            self.checkpoints = tuple(checkpoint.seen_through(found) for checkpoint in self.checkpoints)
            self.base = None if self.base is None else self.base.seen_through(found)

    @property
    def vocabulary_asked(self) -> tuple[str | None, int | None]:
        """The vocabulary that was asked for, and the number whose multiple its rows are; None: neither."""
        return self._wanted

    @property
    def alignment(self) -> Alignment | None:
        """The vocabulary that all are seen in, where it is another view of them."""
        seen = self.checkpoints[0].aligned
        return None if seen is None else seen.alignment

    @classmethod
    def open(
        cls,
        models: Models | ModelPool,
        base: Model | None = None,
        *,
        tokenizer_source: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> ModelPool:
        """Opens a pool from whatever is given; a pool is taken as it is.

        A file counts once, whatever links lead to it. The base is left out where the patterns also match it.

        Args:
            models: a pool, or what the class takes: ``"runs/*.pt"``, ``["a.pt", Path("b.pt")]``,
                ``[{"path": "c.pt", "key": "ema"}]``, ``[net.state_dict(), other]``, ``{"first": net}``.
            base: the model that they were fine-tuned from, where known.
            tokenizer_source: the vocabulary that all are seen in; a pool that is seen so already is taken as it is.
            pad_to_multiple_of: a number of which that of its rows is to be a multiple.

        Raises:
            PoolError: a source matches nothing, or something is no model.
            CheckpointError: a file is not a checkpoint, or a mapping no state dict.
        """
        _check_asked(tokenizer_source, pad_to_multiple_of)
        if isinstance(models, ModelPool):
            if base is None and (tokenizer_source, pad_to_multiple_of) in (models._wanted, (None, None)):
                return models
            found, base = models.checkpoints, models.base if base is None else base
            return cls(found, base, tokenizer_source=tokenizer_source, pad_to_multiple_of=pad_to_multiple_of)
        return cls(models, base, tokenizer_source=tokenizer_source, pad_to_multiple_of=pad_to_multiple_of)

    @classmethod
    def reopen(cls, ingredients: Sequence[Ingredient]) -> ModelPool:
        """Opens the checkpoints of a recipe, where they were when it was written; those of the Hub are fetched.

        Those that were seen in one vocabulary are seen in it again, which takes all models of their pool.

        Raises:
            RecipeError: one is no longer there, or was in memory.
        """
        if ingredients and ingredients[0].vocabulary is not None:
            return cls._seen_again(ingredients, ingredients[0].vocabulary)
        return cls(_reopened(ingredients))

    @classmethod
    def _seen_again(cls, ingredients: Sequence[Ingredient], vocabulary: Vocabulary) -> ModelPool:
        """Opens the ingredients of a recipe, seen in the vocabulary of the pool that they were in."""
        places = [*vocabulary.models, *([vocabulary.base] if vocabulary.base is not None else [])]
        found = _reopened([Ingredient(each.name, "", each.file, each.key, each.base) for each in places])
        alignment = _alignment(found, vocabulary)
        known = {(whereabouts(model), model.key): model for model in alignment.everybody}
        lost = [row for row in ingredients if (row.file, row.key) not in known]
        if lost:
            raise RecipeError(f"ingredient '{lost[0].name}' is not among the models whose vocabulary the recipe names")
        return cls([known[row.file, row.key].seen_through(alignment) for row in ingredients])

    @classmethod
    def seen(cls, models: Models | ModelPool, vocabulary: Vocabulary) -> ModelPool:
        """Opens a pool whose models are seen in the vocabulary that a recipe names.

        Args:
            models: what :meth:`open` takes; of those that the recipe names, and which are not among these, the files.
            vocabulary: the vocabulary.

        Raises:
            RecipeError: one that it names is not there.
        """
        found = models.with_base if isinstance(models, ModelPool) else opened(models)[0]
        given = {checkpoint.name: checkpoint for checkpoint in found}
        places = [*vocabulary.models, *([vocabulary.base] if vocabulary.base is not None else [])]
        missing = [place for place in places if place.name not in given]
        if missing:
            rows = [Ingredient(each.name, "", each.file, each.key, each.base) for each in missing]
            given |= {place.name: model for place, model in zip(missing, _reopened(rows), strict=True)}
        alignment = _alignment([given[place.name] for place in places], vocabulary)
        return cls([model.seen_through(alignment) for model in alignment.everybody])

    def __len__(self) -> int:
        return len(self.checkpoints)

    @property
    def names(self) -> tuple[str, ...]:
        """The checkpoints' names, in pool order."""
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Name → (shape, dtype name), in the first checkpoint's order."""
        return self.checkpoints[0].tensors

    @functools.cached_property
    def mixable(self) -> frozenset[str]:
        """Names of the floating-point tensors: the ones that are averaged. The rest come from the first ingredient."""
        return frozenset(name for name, (_, dtype) in self.tensors.items() if is_floating(dtype))

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Groups of tensors that are one storage in every checkpoint."""
        return ties(self.checkpoints)

    def _sheet(self) -> Sheet:
        numbers = sum(math.prod(shape) for shape, _ in self.tensors.values())
        dtypes = "/".join(sorted({dtype for _, dtype in self.tensors.values()}))
        facts = [named(self.names, "model"), plural(len(self.tensors), "tensor", ",")]
        facts += [plural(numbers, "parameter", ","), dtypes, f"base '{self.base.name}'" if self.base else "no base"]
        rows = [[checkpoint.name, str(checkpoint.path)] for checkpoint in self.with_base]
        return Sheet(name="ModelPool", facts=tuple(facts), grids=(grid(("model", "file"), rows),))

    @property
    def with_base(self) -> tuple[Checkpoint, ...]:
        """The models, and after them the base where there is one."""
        return self.checkpoints if self.base is None else (*self.checkpoints, self.base)

    def check_open_files(self) -> None:
        """Refuses a pool, before any work, whose files cannot all be open at once, as they are while it is merged.

        Raises:
            PoolError: this process may not have so many.
        """
        count = sum(len(checkpoint.files) for checkpoint in self.with_base)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and count + SPARE_FILES > limit:
            raise PoolError(
                f"these models are {count} files, and this process may have {limit} open: raise that (ulimit -n "
                f"{count + SPARE_FILES}), or save the models in fewer shards"
            )

    def postpone(self) -> None:
        """Lets files and times of change stand for content hashes, until :meth:`settle` brings these.

        For merges that read every byte once, and hash it then.
        """
        self._rows.postpone()

    def expect(self, rows: Iterable[Ingredient]) -> None:
        """Takes for granted that the files of a recipe's ingredients hold what they held, until they are read."""
        self._rows.expect(rows)

    def settle(self, hashes: Mapping[Checkpoint, str]) -> None:
        """Takes content hashes that were found while merging."""
        self._rows.settle(hashes)

    @property
    def ingredients(self) -> tuple[Ingredient, ...]:
        """The checkpoints as recipe rows: name, content hash, file. Reads every file once."""
        return self._rows.of_models

    @property
    def base_ingredient(self) -> Ingredient:
        """The base as a recipe row.

        Raises:
            PoolError: the pool has no base.
        """
        if self.base is None:
            raise PoolError("this pool has no base; give one with `base`")
        return self._rows.of(self.base)

    @property
    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """Groups of checkpoints with the same weights."""
        groups: dict[str, list[str]] = {}
        for ingredient in self.ingredients:
            groups.setdefault(ingredient.hash, []).append(ingredient.name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)

    @functools.cached_property
    def untuned(self) -> dict[str, int]:
        """Models that keep most of the base's tensors, such as a linear probe: name → how many tensors differ.

        Empty without a base; adapters are none of them: they keep most of it by what they are. A model is read further
        only where its largest tensor is the base's own.
        """
        whole = [checkpoint for checkpoint in self.checkpoints if checkpoint.adapted is None]
        return untuned(whole, self.base, self.mixable) if self.base is not None else {}

    @functools.cached_property
    def beside(self) -> tuple[str, ...]:
        """Sentences about the files beside the models: configurations, tokenizers and classes that differ.

        They say, too, which of these files go along with a merge, and which are left out.
        """
        return self.compared("the base" if self.base is not None else self.checkpoints[0].name)

    def compared(self, taken: str | None) -> tuple[str, ...]:
        """Compares the files beside the models: a sentence for each difference, and for what is left out.

        Args:
            taken: the name of the model whose files go along with the result; None where none do.
        """
        found = differences(self._called, taken)
        if self.alignment is not None:
            found = (*self.alignment.notes, *self.alignment.others(found))
        return (*told(self.dtypes, self.with_base, self.base), *self._classes, *found)

    @functools.cached_property
    def constant(self) -> frozenset[str]:
        """Names of the tensors that are bit-equal in all checkpoints of the pool."""
        return constant(self.checkpoints)

    def find(self, ingredient: Ingredient) -> Checkpoint:
        """Finds the checkpoint with an ingredient's content.

        Raises:
            RecipeError: no checkpoint of this pool has that content hash.
        """
        return self._rows.find(ingredient)

    def read(self, ingredient: Ingredient, name: str) -> Tensor:
        """Reads one tensor of one ingredient, on the CPU."""
        return self.find(ingredient).read(name)


def _check_asked(source: object, multiple: object) -> None:
    """Refuses values that are no vocabulary, and a number of rows without one.

    Raises:
        PoolError: it says which.
    """
    if not isinstance(source, str | None):
        raise PoolError(f"`tokenizer_source` is {kind_of(source)}; say union, base, first, or a model's name")
    if multiple is not None and (not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1):
        raise PoolError(f"`pad_to_multiple_of` is {kind_of(multiple)}; it is a number, 1 or larger")
    if multiple is not None and source is None:
        raise PoolError("`pad_to_multiple_of` pads a common vocabulary: add `tokenizer_source=union`, base or first")


def _alignment(models: Sequence[Checkpoint], vocabulary: Vocabulary) -> Alignment:
    """The vocabulary that a recipe names, of its models and, last, their base."""
    models, wanted = list(in_common_dtypes(models, models)), (vocabulary.source, vocabulary.multiple)
    return Alignment(models, None, wanted) if vocabulary.base is None else Alignment(models[:-1], models[-1], wanted)


def _reopened(ingredients: Sequence[Ingredient]) -> list[Checkpoint]:
    """Opens the checkpoints of a recipe, where they were when it was written; those of the Hub are fetched.

    Raises:
        RecipeError: one is no longer there, or was in memory.
    """
    gone = [ingredient.name for ingredient in ingredients if not ingredient.file]
    if gone:
        were = f"ingredient '{gone[0]}' was" if len(gone) == 1 else f"{len(gone)} ingredients ('{gone[0]}', …) were"
        raise RecipeError(f"{were} in memory when this was merged; pass `models` with the same content")
    bases = {row.base: row for row in ingredients if row.base}
    named = [*(row.file for row in ingredients), *bases]
    fetch(place for place in named if place.startswith(PREFIX))  # what else a recipe says is a path
    places = {place: place_of(place) if place.startswith(PREFIX) else Path(place) for place in named}
    for place, row in bases.items():
        if not places[place].exists():
            raise RecipeError(f"the base of adapter '{row.name}' is no longer at {place}; pass `models`")
    lost = [ingredient for ingredient in ingredients if not places[ingredient.file].exists()]
    if lost:
        raise RecipeError(f"ingredient '{lost[0].name}' is no longer at {lost[0].file}; pass `models`")
    names = [row.name for row in ingredients]
    if len(set(names)) < len(names):  # a base that was called as a model is
        names = [f"{name} ({number})" for number, name in enumerate(names)]
    under = {"": None} | {place: Checkpoint(places[place]) for place in bases}
    rows = zip(ingredients, names, strict=True)
    return [Checkpoint(places[row.file], name, row.key, under[row.base]) for row, name in rows]

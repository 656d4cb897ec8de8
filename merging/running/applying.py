"""``merging.apply``: a merged model rebuilt from its recipe, bit for bit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import FolderError, InterruptedRunError, OptionError, RecipeError, Stopped, reason_of
from merging.mixing.writing import Writing
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.watcher import Watcher
from merging.running.run import Result
from merging.running.saved import SavedRun, load_run
from merging.running.views import RunViews
from merging.storage import atomic
from merging.storage.folder import check_parent, check_place
from merging.storage.lock import Lock, is_hidden
from merging.storage.output_file import check_file
from merging.storage.pool import ModelPool
from merging.storage.result import OVERRIDES, RECIPE, REPORT, read_recipe
from merging.values.recipe import Ensemble, Merge, Recipe
from merging.values.wording import kind_of

if TYPE_CHECKING:
    from torch import Tensor

    from merging.mixing.writing import Written
    from merging.storage.ingredients import Models

KINDS = {".safetensors": "safetensors", ".pt": "pt", "": "safetensors"}
"""Ending of what is written → format; none: a folder."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Applied:
    """A model that was rebuilt from its recipe.

    Attributes:
        recipe: which models, and how much of each.
        pool: the models, found by their content.
        path: the file or folder that was written, or None.
        hash: content hash of what was written; empty where nothing was.
        writing: format of the file, dtype of the tensors, precision of sums.
        notes: sentences about what lies beside the models.
        negative: layers whose running variance is negative somewhere.
    """

    recipe: Recipe
    pool: ModelPool = field(repr=False)
    path: Path | None = None
    hash: str = ""
    writing: Writing = field(default=Writing())
    notes: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Tensor]:
        """The model's tensors, under the pool's names.

        Raises:
            RecipeError: an input has changed since.
        """
        return self.writing.state_dict(self.recipe, self.pool)


@by_keyword(Writing, Watcher, without=("format",))
def apply(
    recipe: Recipe | Result | SavedRun | Path | str,
    *,
    models: ModelPool | Models | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    writing: Writing = Writing(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Applied:
    """Rebuilds a merged model from its recipe, bit for bit.

    Ingredients are recognised by their content, not by their names: a changed file is refused.

    Args:
        recipe: a recipe, a ``recipe.json``, a run's folder, the result of a merge, or a run that was read back.
        models: what holds the ingredients, as a pool takes it (files, patterns, state dicts, modules); default: the
            files that they were in.
        output: what is written: a ``.safetensors`` or ``.pt`` file, or a folder; None writes nothing.
        overwrite: replace that file.
        writing: dtype, precision of sums, size of shards.
        watcher: is told what happens, and may end it: nothing is written then.
        keywords: fields of these values by their own names, instead.

    Returns:
        The recipe and where it was written; ``state_dict()`` gives the tensors.

    Raises:
        RecipeError: there is none, or an ingredient is not among the models.
        FolderError: the place is taken, or cannot be written.
        InterruptedRunError: it was ended.
    """
    writing, watcher = given("apply", keywords, writing, watcher, without=("format",))
    expected("`overwrite`", overwrite, bool, "True or False")
    expected("`output`", output, (str, os.PathLike, type(None)), "the path of a file or folder, or None")
    place = None if output is None else Path(output)
    how = writing if place is None else _format(place, writing)
    if place is not None:
        _check_place(place, overwrite=overwrite)
    found, beside = _recipe(recipe)
    pool = _pool(found, models, recipe)
    found.check_of(pool.tensors)
    writing.check(pool, "recipe")
    if place is None:
        for ingredient in found.ingredients:
            pool.find(ingredient)
        return Applied(recipe=found, pool=pool, writing=how)
    pool.check_open_files()
    files = [file for checkpoint in pool.checkpoints for file in (checkpoint.path, *checkpoint.files)]
    check_file(place, [*files, *beside])
    with _written(place, overwrite=overwrite) as aside:
        written = how.model(found, pool, aside, watcher.progress, watcher.should_stop)
    return _applied(found, pool, place, how, written)


def _applied(recipe: Recipe, pool: ModelPool, place: Path, how: Writing, written: Written) -> Applied:
    return Applied(
        recipe=recipe,
        pool=pool,
        path=place,
        hash=written.hash,
        writing=how,
        notes=(*written.notes, *(pool.beside if not place.suffix else pool.compared(None))),
        negative=written.negative,
    )


def _recipe(given: object) -> tuple[Recipe, list[Path]]:
    """The recipe, and the files that say it.

    Raises:
        RecipeError: it is none.
    """
    if isinstance(given, RunViews):
        given = given.merge
    if isinstance(given, Recipe):
        return given, []
    if isinstance(given, Merge):
        raise RecipeError(f"the merge is {kind_of(given)}, which has no recipe; take its state_dict()")
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise RecipeError(f"the recipe is {kind_of(given)}; give a Recipe, a recipe.json, or a run's folder")
    path = Path(given)
    if not (path / RECIPE).is_file() and (path / REPORT).is_file():
        given = load_run(path).merge
        if not isinstance(given, Recipe):
            raise RecipeError(
                f"{path} holds {kind_of(given)}, which has no recipe; "
                + ("each of its members has one" if isinstance(given, Ensemble) else "its model file is all there is")
            )
    beside = path if path.is_dir() else path.parent
    return read_recipe(path), [path, beside / RECIPE, beside / OVERRIDES]


def _pool(recipe: Recipe, models: ModelPool | Models | None, given: object) -> ModelPool:
    """The pool that holds a recipe's ingredients.

    Raises:
        MergingError: they are not where they were, or are no models.
    """
    if models is None and isinstance(given, Result):
        return given.pool
    if models is None:
        pool = ModelPool.reopen(recipe.ingredients)
        pool.expect(recipe.ingredients)
        return pool
    key, *others = {ingredient.key for ingredient in recipe.ingredients}
    if isinstance(models, list | tuple) and key and not others:  # paths alone: the key is the recipe's
        models = [{"path": str(each), "key": key} if isinstance(each, str | Path) else each for each in models]
    seen = None if isinstance(models, ModelPool) and models.alignment is not None else recipe.vocabulary
    return ModelPool.open(models) if seen is None else ModelPool.seen(models, seen)


def _format(place: Path, writing: Writing) -> Writing:
    """How a file is written, by its name.

    Raises:
        FolderError: a name with another ending.
        OptionError: settings that its format does not have.
    """
    kind = KINDS.get(place.suffix)
    if kind is None:
        raise FolderError(f"`output` {place}: the name must end in .safetensors or .pt, or have no ending (a folder)")
    if kind == "pt" and (writing.max_shard_size is not None or writing.accumulate != "float64"):
        raise OptionError(
            "`max_shard_size` and `accumulate` are for safetensors; give `output` a name that ends in .safetensors, or "
            "a folder"
        )
    if place.suffix and writing.max_shard_size is not None:
        raise OptionError("`max_shard_size` writes several files; give `output` a folder (no ending)")
    if place.suffix and writing.adapter:
        raise OptionError("`written_as=adapter` writes a folder: give `output` a name with no ending")
    return replace(writing, format=kind)


def _check_place(place: Path, *, overwrite: bool) -> None:
    """Refuses a place that is taken: an existing file may be replaced, a folder must be empty.

    Raises:
        FolderError: it is.
    """
    check_parent(place, f"`output` {place}")
    if not place.suffix:
        check_place(place)
        if place.is_dir() and any(not is_hidden(path.name) for path in place.iterdir()):
            raise FolderError(
                f"{place} holds other files; choose another `output`: a folder that is empty or not there"
            )
    elif place.exists() and not overwrite:
        raise FolderError(f"{place} exists; pass `overwrite=True` or choose another `output`")


@contextlib.contextmanager
def _written(place: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write to aside; what is in it takes its place, whole or not at all.

    Raises:
        FolderError: it cannot be written; nothing is left there.
        InterruptedRunError: it was ended.
    """
    lock, aside = Lock(place.absolute(), beside=True), None
    try:
        _check_place(place, overwrite=overwrite)
        aside = atomic.new_folder(place.absolute().parent, place.name)
        yield aside
        if not place.suffix:
            if place.is_dir():
                Lock(place).release()  # nobody writes there, and what a killed run has left is removed
            atomic.sync_tree(aside)
            atomic.take_place(aside, place)
        else:
            model = aside / ("model" + place.suffix)
            atomic.sync(model)
            atomic.take_place(model, place)
    except Stopped:
        raise InterruptedRunError("interrupted while merging; nothing was written") from None
    except FolderError:
        raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise FolderError(f"cannot write {place}: {reason_of(error)}; nothing was left there") from None
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):  # the next one that has the lock removes it
                atomic.remove(aside)
        lock.release()

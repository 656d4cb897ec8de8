"""Models that are to be scored, opened: checkpoints, recipes and ensembles, with the pool that each is read from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import MergingError
from merging.looking.wanted import Members
from merging.mixing.arithmetic import materialise
from merging.partitioners.whole import Whole
from merging.plugins.task import Task, own_pool
from merging.running.applying import Applied
from merging.running.run import Result
from merging.running.saved import SavedRun
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.hub.fetching import id_of
from merging.storage.model_folder import is_model_folder
from merging.storage.pool import ModelPool
from merging.storage.result import ENSEMBLE, MODELS, RECIPE, read_ensemble, read_recipe
from merging.storage.sources import place_of
from merging.storage.training_beside import trained_with
from merging.values.recipe import Ensemble, Merge, Recipe, Weights
from merging.values.wording import kind_of

if TYPE_CHECKING:
    from merging.storage.in_memory import InMemory
    from merging.storage.ingredients import Models
    from merging.values.leaderboard import Trained


@dataclass(frozen=True)
class OpenedModel:
    """A model whose files are there and fit together; a recipe is rebuilt when it is asked for.

    Attributes:
        pool: the checkpoints that it can be read from.
        made: the recipe or ensemble; None: the pool's one checkpoint.
    """

    pool: ModelPool
    made: Recipe | Ensemble | None = None

    def merge(self) -> Merge:
        """The model itself; a recipe is put together now."""
        if self.made is None:
            return Recipe.single(self.pool.ingredients[0], Whole().split(self.pool.tensors))
        if isinstance(self.made, Ensemble):
            return self.made
        tensors, rows = materialise(self.made, self.pool), self.made.ingredients
        return Weights(tensors=tensors, ingredients=rows, strategy="recipe", options={}, hash=content_hash(tensors))

    def content(self, merged: Merge) -> str:
        """The same text for models of the same weights, whatever files they are in."""
        if isinstance(merged, Ensemble):
            members = [member.ingredients[0].hash for member in merged.members if isinstance(member, Recipe)]
            return f"ensemble {merged.average} {list(zip(members, merged.weights, strict=True))}"
        return merged.hash if isinstance(merged, Weights) else self.pool.ingredients[0].hash

    @property
    def trained(self) -> Trained:
        """The hyper-parameters that are known of a checkpoint; none of a merge."""
        return trained_with(self.pool.checkpoints[0]) if self.made is None else {}


def open_model(
    model: Checkpoint | Path | str | Result | SavedRun | Applied | InMemory, models: ModelPool | Models = ()
) -> OpenedModel:
    """Opens a checkpoint, a recipe, an ensemble's folder or a run's.

    Args:
        model: the model.
        models: what holds a recipe's ingredients, as a pool takes it; default: the files it was made from.

    Raises:
        MergingError: it is none, or a recipe's ingredients are no longer there.
    """
    if isinstance(model, Merge):
        raise MergingError(f"{kind_of(model)} alone has no tensors; give the result of the merge, or its folder")
    if isinstance(model, Result | SavedRun | Applied):
        model = model.state_dict()
    if not isinstance(model, Checkpoint | str | os.PathLike):
        model = Checkpoint.of(model, "model")
    path = model.path if isinstance(model, Checkpoint) else place_of(model)
    if (path / ENSEMBLE).is_file():
        average, members = read_ensemble(path)
        pool = ModelPool([Checkpoint(folder, f"{number}") for number, (folder, *_) in enumerate(members)])
        recipes = tuple(Recipe.single(row, Whole().split(pool.tensors)) for row in pool.ingredients)
        return OpenedModel(pool, Ensemble(recipes, tuple(weight for *_, weight in members), average))
    if path.is_dir() and id_of(path) is None:
        written = [path / name for name in MODELS.values() if (path / name).is_file()]
        path = written[0] if written else path if is_model_folder(path) else path / RECIPE
    if path.suffix != ".json" or (isinstance(model, Checkpoint) and model.in_memory):
        return OpenedModel(ModelPool([model if isinstance(model, Checkpoint) else Checkpoint(path)]))
    recipe = read_recipe(path)
    given = not isinstance(models, Sequence) or models
    seen = None if isinstance(models, ModelPool) and models.alignment is not None else recipe.vocabulary
    if not given:
        pool = ModelPool.reopen(recipe.ingredients)
    else:
        pool = ModelPool.open(models) if seen is None else ModelPool.seen(models, seen)
    recipe.check_of(pool.tensors, str(path))
    return OpenedModel(pool, recipe)


def open_all(
    named: Mapping[str, Checkpoint | Path | str | Result | SavedRun | Applied | InMemory],
    ingredients: ModelPool | Models,
    wrong: list[str],
) -> dict[str, OpenedModel]:
    """Opens several models; takes all faults, not the first.

    Args:
        named: name → model.
        ingredients: files, folders and patterns that hold recipes' ingredients; default: those they were made from.
        wrong: takes a sentence for each that cannot be opened.
    """
    found = {}
    for name, model in named.items():
        try:
            found[name] = open_model(model, ingredients)
        except MergingError as error:
            wrong.append(str(error))
    return found


def pool_of(task: Task) -> Members:
    """The models of a task's own pool, by name; empty where it ships none."""
    shipped = own_pool(task)
    return {} if shipped is None else {c.name: (c.path, c.key) for c in shipped.checkpoints}

"""``merging.load_run``: a run read back from its folder, whether its ingredients are still where they were or not."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import DAMAGED, FolderError, MergingError, RecipeError, raised, unknown
from merging.mixing.writing import Writing
from merging.plugins.keywords import expected
from merging.running.views import RunViews
from merging.storage.checkpoint import Checkpoint
from merging.storage.journal import FILE
from merging.storage.model_folder import is_model_folder
from merging.storage.pool import ModelPool
from merging.storage.result import ENSEMBLE, MODELS, RECIPE, REPORT, read_ensemble, read_recipe
from merging.values.formats import known_fields, parsed
from merging.values.recipe import Ensemble, Ingredient, Merge, Recipe, Weights
from merging.values.report import Report
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SavedRun(RunViews):
    """A run as its folder holds it; it has what a :class:`merging.Result` has.

    Attributes:
        folder: its folder.
        report: rows, comparison and cost.
        merge: what was saved: the recipe (or weights) of the merged model, or the ensemble.
    """

    folder: Path
    report: Report
    merge: Merge

    @functools.cached_property
    def pool(self) -> ModelPool:
        """The ingredients, opened where they were when the run was made.

        Raises:
            RecipeError: one is no longer there.
        """
        return ModelPool.reopen(self.merge.ingredients)

    def state_dict(self) -> dict[str, Tensor]:
        """The merged model's tensors, as the run has written them; computed again where its model file is gone.

        Raises:
            StrategyError: it is an ensemble, which has several.
            CheckpointError: the model file is damaged.
            RecipeError: the model file is gone, and so is an ingredient.
        """
        merged, written = self._single(), _written(self.folder)
        if written is not None:
            return Checkpoint(written).load()
        return Writing().state_dict(merged, self.pool)


def load_run(folder: Path | str) -> SavedRun:
    """Reads a run back from the folder that it was written to, also one that was interrupted and saved its best so far.

    The models that were merged need not be there: only ``pool`` looks for them.

    Args:
        folder: a run's output.

    Raises:
        FolderError: there is no run, or its report is damaged; the nearest folder that holds one is named.
        RecipeError: its recipe is damaged, or both recipe and model are gone.
    """
    expected("`folder`", folder, (str, os.PathLike), "the path of a run's folder")
    path = Path(folder).expanduser()
    path = path.parent if path.name in (REPORT, RECIPE) and path.is_file() else path
    if not (path / REPORT).is_file():
        raise _no_run(path)
    report = Report.from_json(path)
    return SavedRun(folder=path, report=report, merge=_merge(path, report))


def _no_run(path: Path) -> MergingError:
    """Says what lies there instead, and where runs lie."""
    if (path / FILE).is_file():
        return FolderError(f"the run in {path} has written no result yet; go on with it by `resume`")
    if (path / "benchmark.json").is_file():
        return FolderError(f"{path} holds a benchmark, no run; read {path / 'benchmark.json'} with Benchmark.read")
    below, beside = (sorted(str(found.parent) for found in place.glob(f"*/{REPORT}")) for place in (path, path.parent))
    if below:
        return FolderError(f"{path} holds no run itself, but {plural(len(below), 'run')}: {some(below, 4)}")
    if beside:
        return unknown("run", str(path), beside, error=FolderError)
    return FolderError(f"there is no run in {path}: a run's folder holds {REPORT}")


def _merge(folder: Path, report: Report) -> Merge:
    if (folder / ENSEMBLE).is_file():
        return _ensemble(folder)
    if (folder / RECIPE).is_file():
        return read_recipe(folder)
    written = _written(folder)
    if written is None:
        raise RecipeError(f"{folder} holds neither a recipe nor a model, only its report")
    lineage = parsed((folder / REPORT).read_bytes()).get("lineage", ())
    try:
        ingredients = tuple(Ingredient(**known_fields(Ingredient, row)) for row in lineage)
    except DAMAGED as error:
        raise RecipeError(f"the lineage in {folder / REPORT} is damaged: {raised(error, whole=True)}") from None
    return Weights(
        tensors=_Written(written),
        ingredients=ingredients,
        strategy=report.saved,
        options=report.options,
        hash=report.content_hash,
    )


def _ensemble(folder: Path) -> Ensemble:
    """Members as recipes; what was measured for one stands in its model."""
    average, members = read_ensemble(folder)
    recipes = []
    try:
        for (place, *_), entry in zip(members, parsed((folder / ENSEMBLE).read_bytes())["members"], strict=True):
            recipe = Recipe.from_json(entry["recipe"] | {"overrides": {}})
            measured = list(dict(entry["recipe"]["overrides"]))
            if measured:
                recipe = replace(recipe, overrides=_Written(_written(place) or place, measured))
            recipes.append(recipe)
    except DAMAGED as error:
        raise RecipeError(f"{folder / ENSEMBLE} is damaged: {raised(error, whole=True)}") from None
    return Ensemble(tuple(recipes), tuple(weight for *_, weight in members), average)


def _written(folder: Path) -> Path | None:
    """The model that a run has written into a folder."""
    files = [folder / name for name in MODELS.values() if (folder / name).is_file()]
    return files[0] if files else folder if is_model_folder(folder) else None


class _Written(Mapping[str, Any]):
    """A written model's tensors, read on access."""

    def __init__(self, path: Path, names: list[str] | None = None) -> None:
        self._path, self._names = path, names

    @functools.cached_property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self._path)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._checkpoint.tensors:
            raise KeyError(name)
        return self._checkpoint.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names if self._names is not None else self._checkpoint.tensors)

    def __len__(self) -> int:
        return len(self._names if self._names is not None else self._checkpoint.tensors)

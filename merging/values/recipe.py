"""Recipes: the whole lineage of a linear merge in a few kilobytes, and the other things a strategy may return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.errors import FormatError, MergingError, RecipeError
from merging.moved import by_position
from merging.values.formats import RECIPE, check_format, check_types, known_fields
from merging.values.frames import frame
from merging.values.partition import Component, Partition
from merging.values.shown import Grid, Sheet, Shown, grid, named
from merging.values.wording import beginning, plural

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

COLUMNS = 12
"""Components of a recipe that a notebook shows side by side at the most."""


@dataclass(frozen=True)
class Place:
    """A checkpoint by its name, and where it was found: file, key in that, and an adapter's base."""

    name: str
    file: str
    key: str = ""
    base: str = ""

    def to_json(self) -> dict[str, str]:
        """Gives JSON-ready values; of key and base those that are there."""
        more = {name: value for name, value in (("key", self.key), ("base", self.base)) if value}
        return {"name": self.name, "file": self.file} | more

    @classmethod
    def from_json(cls, data: Any) -> Place:
        """Makes it from what :meth:`to_json` gave.

        Raises:
            RecipeError: a value that is no text.
        """
        if not isinstance(data, Mapping):
            raise RecipeError(f"not a recipe: {beginning(repr(data), 60)} stands where a model should")
        texts = (data["name"], data["file"], data.get("key", ""), data.get("base", ""))
        if not all(isinstance(text, str) for text in texts):
            raise RecipeError("not a recipe: a name or file is no text")
        return cls(*texts)


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary in which the ingredients of a merge were seen, where they have several.

    Attributes:
        source: ``union``, ``base``, ``first``, or a model's name.
        multiple: a number of which that of its rows is a multiple; None: as many as tokens.
        models: all models of the pool, in its order: each may decide rows of the others.
        base: the model that they were fine-tuned from, where there was one.
    """

    source: str
    multiple: int | None
    models: tuple[Place, ...]
    base: Place | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives JSON-ready values, those of its models among them."""
        return {
            "tokenizer_source": self.source,
            "pad_to_multiple_of": self.multiple,
            "models": [place.to_json() for place in self.models],
            "base": None if self.base is None else self.base.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Vocabulary | None:
        """Makes it from what :meth:`to_json` gave; None of None.

        Raises:
            RecipeError: values of other types.
        """
        if data is None:
            return None
        source, multiple, base = data["tokenizer_source"], data["pad_to_multiple_of"], data["base"]
        if not isinstance(data["models"], list) or not data["models"]:
            raise RecipeError("not a recipe: its vocabulary is of no models")
        if not isinstance(source, str) or not (multiple is None or (type(multiple) is int and multiple > 0)):
            raise RecipeError("not a recipe: its vocabulary has no source, or pads to no number")
        places = tuple(Place.from_json(place) for place in data["models"])
        return cls(source, multiple, places, None if base is None else Place.from_json(base))


Dtypes: TypeAlias = tuple[tuple[str, str, str], ...]
"""Rows of the tensors that models hold in several dtypes: name, dtype of the sum, dtype of the result."""


@dataclass(frozen=True, repr=False, kw_only=True)
class OfPool:
    """A row that knows what its pool decides: ``dtypes``, where models hold the same tensors in several."""

    dtypes: Dtypes = field(default=(), compare=False)


@dataclass(frozen=True, repr=False)
class Ingredient(OfPool, Shown):
    """A checkpoint that goes into a merge: its name, its content hash, and where it was found (a hint only).

    ``file``: empty where it was in memory. ``key``: of the state dict in a file that holds several. ``base``: of an
    adapter, the file of the model that it stands on; the hash is that of the two together.
    """

    name: str
    hash: str
    file: str = ""
    key: str = ""
    base: str = ""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in which it was seen; None: in its own."""
        return None

    def _sheet(self) -> Sheet:
        return Sheet(name="Ingredient", facts=(self.name, self.hash[:12], self.file, self.key, self.base))

    def to_json(self) -> dict[str, str]:
        """Gives JSON-ready values; of key and base those that are there."""
        more = {name: value for name, value in (("key", self.key), ("base", self.base)) if value}
        return {"name": self.name, "hash": self.hash, "file": self.file} | more


@dataclass(frozen=True, repr=False)
class Aligned(Ingredient):
    """A checkpoint that was seen in a vocabulary of several models; its hash is that of what was seen."""

    seen_in: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in which it was seen."""
        return self.seen_in


@dataclass(frozen=True, eq=False, repr=False)
class Recipe(Shown):
    """A linear merge: tensor ``t`` of the result is ``Σ_i coefficients[i, component(t)] · tensor_i(t)``.

    Attributes:
        ingredients: checkpoints that are merged, one a row.
        partition: components of the model, one a column; stored with the recipe, tensor by tensor.
        coefficients: float64, shape ``(ingredients, components)``; may be negative, need not sum to one.
        overrides: tensors that are not linear (recalibrated BatchNorm statistics): they replace the sum's.
            Integer and boolean tensors always come from the first ingredient and need no entry here.
    """

    ingredients: tuple[Ingredient, ...]
    partition: Partition
    coefficients: NDArray[np.float64]
    overrides: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        table = np.array(self.coefficients, dtype=np.float64)
        shape = (len(self.ingredients), len(self.partition))
        if table.shape != shape or not self.ingredients:
            raise RecipeError(f"coefficients have shape {table.shape}; ingredients × components is {shape}")
        if not np.isfinite(table).all():
            raise RecipeError("a coefficient is NaN or infinite")
        table.setflags(write=False)
        object.__setattr__(self, "coefficients", table)

    @classmethod
    def single(cls, ingredient: Ingredient, partition: Partition) -> Recipe:
        """Makes the recipe of one model as it is."""
        return cls((ingredient,), partition, np.ones((1, len(partition))))

    @classmethod
    def mean(cls, ingredients: Sequence[Ingredient], partition: Partition) -> Recipe:
        """Makes the recipe of the uniform average; frozen components stay with the first ingredient."""
        count = len(ingredients)
        recipe = cls(tuple(ingredients), partition, np.full((count, len(partition)), 1.0 / count))
        return recipe._freeze()

    @classmethod
    def weighted(
        cls, ingredients: Sequence[Ingredient], partition: Partition, coefficients: NDArray[np.float64]
    ) -> Recipe:
        """Makes a recipe with given coefficients; frozen components stay with the first ingredient.

        Args:
            ingredients: checkpoints that are merged, one a row.
            partition: components of the model, one a column.
            coefficients: float64, shape ``(ingredients, components)``.

        Raises:
            RecipeError: the shape is another, or a coefficient is NaN or infinite.
        """
        return cls(tuple(ingredients), partition, coefficients)._freeze()

    def lerp(self, other: Recipe, weight: NDArray[np.float64] | float) -> Recipe:
        """Mixes two recipes: ``weight · self + (1 − weight) · other``.

        Rows of the same ingredient are added; new ingredients follow in their order. Frozen components keep
        the values of the result's first ingredient.

        Args:
            other: a recipe over the same partition.
            weight: this recipe's share, one for each component (shape ``(components,)``) or one for all.

        Raises:
            RecipeError: different partitions, or overrides.
        """
        if self.partition.names != other.partition.names:
            raise RecipeError("two recipes over different partitions cannot be mixed")
        if self.overrides or other.overrides:
            raise RecipeError("recipes with overrides cannot be mixed: mix first, then measure what is not linear")
        ingredients = (*self.ingredients, *(i for i in other.ingredients if i not in self.ingredients))
        table = np.zeros((len(ingredients), len(self.partition)))
        weights = np.broadcast_to(np.asarray(weight, dtype=np.float64), (len(self.partition),))
        for row, ingredient in enumerate(ingredients):
            if ingredient in self.ingredients:
                table[row] += weights * self.coefficients[self.ingredients.index(ingredient)]
            if ingredient in other.ingredients:
                table[row] += (1.0 - weights) * other.coefficients[other.ingredients.index(ingredient)]
        return Recipe(ingredients, self.partition, table)._freeze()

    @classmethod
    def combined(cls, recipes: Sequence[Recipe], weights: NDArray[np.float64]) -> Recipe:
        """Adds up recipes with weights: ``Σ_r weights[r] · recipes[r]``.

        Rows of the same ingredient are added. Frozen components keep the values of the result's first ingredient.

        Args:
            recipes: one or more recipes over one partition.
            weights: the share of each recipe in each component, shape ``(recipes, components)``.

        Raises:
            RecipeError: different partitions, or overrides.
        """
        if any(recipe.partition.names != recipes[0].partition.names for recipe in recipes):
            raise RecipeError("recipes over different partitions cannot be mixed")
        if any(recipe.overrides for recipe in recipes):
            raise RecipeError("recipes with overrides cannot be mixed: mix first, then measure what is not linear")
        ingredients = tuple(dict.fromkeys(i for recipe in recipes for i in recipe.ingredients))
        table = np.zeros((len(ingredients), len(recipes[0].partition)))
        for recipe, weight in zip(recipes, np.asarray(weights, dtype=np.float64), strict=True):
            for ingredient, row in zip(recipe.ingredients, recipe.coefficients, strict=True):
                table[ingredients.index(ingredient)] += weight * row
        return cls(ingredients, recipes[0].partition, table)._freeze()

    def _freeze(self) -> Recipe:
        frozen = [i for i, component in enumerate(self.partition.components) if component.frozen]
        if not frozen:
            return self
        table = self.coefficients.copy()
        table[:, frozen] = 0.0
        table[0, frozen] = 1.0
        return Recipe(self.ingredients, self.partition, table, self.overrides)

    @property
    def measured(self) -> frozenset[str]:
        """Tensors that were measured for this merge, not computed from the ingredients."""
        return frozenset(self.overrides)

    @property
    def dtypes(self) -> Dtypes:
        """Dtypes of the tensors that its ingredients' pool held in several; none where they were the same in all."""
        return self.ingredients[0].dtypes

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in which its ingredients were seen; None: in their own."""
        return self.ingredients[0].vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the ingredients that carry weight, in row order."""
        rows = zip(self.ingredients, self.coefficients, strict=True)
        return tuple(ingredient.name for ingredient, row in rows if row.any())

    def to_frame(self) -> DataFrame:
        """The coefficients as a long data frame: ``ingredient``, ``component``, ``coefficient``, ``active``.

        Raises:
            RequirementError: there is no pandas.
        """
        rows = (
            {"ingredient": ingredient.name, "component": c.name, "coefficient": float(value), "active": c.active}
            for ingredient, row in zip(self.ingredients, self.coefficients, strict=True)
            for c, value in zip(self.partition.components, row, strict=True)
        )
        return frame(rows, ("ingredient", "component", "coefficient", "active"))

    def _sheet(self) -> Sheet:
        parts, active = len(self.partition), len(self.partition.active)
        facts = (named(self.names, "model"), f"{plural(parts, 'component')}, {active} active")
        measured = f"{plural(len(self.overrides), 'tensor')} measured again" if self.overrides else ""
        return Sheet(name="Recipe", facts=(*facts, measured), grids=(_coefficients(self),))

    def terms(self, column: int) -> list[tuple[Ingredient, float]]:
        """The ingredients of one component with their coefficients, in row order, zeros left out."""
        values = self.coefficients[:, column]
        return [(i, float(value)) for i, value in zip(self.ingredients, values, strict=True) if value != 0.0]

    def key(self) -> list[Any]:
        """Gives what decides the logits: (ingredient hash, coefficient) pairs of every component that is not inert."""
        columns = [[(i.hash, c.hex()) for i, c in self.terms(column)] for column in self.partition.effective]
        groups = [self.partition.components[column].tensors for column in self.partition.effective]
        overrides = [(name, _tensor_hash(self.overrides[name])) for name in sorted(self.overrides)]
        if len({json.dumps(column) for column in columns}) == 1:  # the same for the whole model, however it is divided
            return [columns[0], overrides]
        return [list(zip(columns, groups, strict=True)), overrides]

    def to_json(self) -> dict[str, Any]:
        """Gives JSON-ready values; floats survive exactly. Overrides are named, their bytes lie beside the recipe."""
        seen = self.vocabulary
        return {
            "format": RECIPE,
            "ingredients": [ingredient.to_json() for ingredient in self.ingredients],
            "components": [
                {
                    "name": c.name,
                    "tensors": list(c.tensors),
                    "inert": c.inert,
                    "frozen": c.frozen,
                    "constant": c.constant,
                    "coefficients": [float(value) for value in self.coefficients[:, column]],
                }
                for column, c in enumerate(self.partition.components)
            ],
            "overrides": {name: _tensor_hash(self.overrides[name]) for name in sorted(self.overrides)},
            **({} if seen is None else {"vocabulary": seen.to_json()}),
            **({"dtypes": {name: list(pair) for name, *pair in self.dtypes}} if self.dtypes else {}),
        }

    @classmethod
    def from_json(cls, data: Any, overrides: Mapping[str, Tensor] | None = None) -> Recipe:
        """Makes the recipe from what :meth:`to_json` gave.

        Raises:
            RecipeError: not a recipe, or an override that does not have the bytes it was saved with.
        """
        if not isinstance(data, Mapping):
            raise RecipeError(f"not a recipe: {beginning(repr(data), 60)}")
        try:
            check_format(data["format"], RECIPE)
            said = _Written(**known_fields(_Written, data))
            seen = Vocabulary.from_json(said.vocabulary)
            facts = [_facts(i) for i in said.ingredients]
            dtypes: Dtypes = tuple((name, *pair) for name, pair in said.dtypes.items())
            ingredients = tuple(
                Ingredient(**each, dtypes=dtypes) if seen is None else Aligned(**each, seen_in=seen, dtypes=dtypes)
                for each in facts
            )
            components = tuple(_component(c) for c in said.components)
            if not components:
                raise RecipeError("not a recipe: it has no components")
            table = np.array([_column(c, len(ingredients)) for c in said.components], dtype=np.float64).T
            found = dict(overrides or {})
            for name, digest in said.overrides.items():
                if name not in found or _tensor_hash(found[name]) != digest:
                    raise RecipeError(f"override '{name}' is missing or has changed since the recipe was written")
            return cls(ingredients, Partition(components), table, {name: found[name] for name in said.overrides})
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, FormatError):
                raise RecipeError(str(error)) from None
            if isinstance(error, MergingError):
                raise
            lacks = " is missing" if isinstance(error, KeyError) else ""
            raise RecipeError(f"not a recipe: {error}{lacks}") from None

    def check_of(self, tensors: Collection[str], called: str = "the recipe") -> None:
        """Says whether a recipe from a file is one of these models: whether it names their tensors, and no others.

        Args:
            tensors: names of the models' tensors.
            called: begins the message.

        Raises:
            RecipeError: it is of others.
        """
        covered = {name for component in self.partition.components for name in component.tensors}
        lost = [name for name in tensors if name not in covered]
        others = sorted((covered | {name for name, *_ in self.dtypes} | self.measured) - set(tensors))
        if lost or others:
            more = f" ({len(lost or others)} such)"
            said = f"it lacks their tensor '{lost[0]}'" if lost else f"they have no tensor '{others[0]}'"
            raise RecipeError(f"{called} is not of these models: {said}{more}")


@dataclass(frozen=True)
class _Written:
    """The fields of a recipe's file, with their types."""

    ingredients: tuple[Mapping[str, object], ...]
    components: tuple[Mapping[str, object], ...]
    overrides: Mapping[str, str]
    dtypes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    vocabulary: Mapping[str, object] | None = None


def _facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe's file says of an ingredient.

    Raises:
        TypeError: a value of another type.
    """
    said = {name: data[name] for name in ("name", "hash", "file")}
    said |= {name: data[name] for name in ("key", "base") if name in data}
    check_types(Ingredient, said)
    return said


def _component(data: Mapping[str, Any]) -> Component:
    """A component as a recipe's file has it.

    Raises:
        TypeError: a value of another type.
    """
    said = {name: data[name] for name in ("name", "tensors", "inert", "constant", "frozen")}
    check_types(Component, said)
    return Component(**said | {"tensors": tuple(said["tensors"])})


def _column(data: Mapping[str, Any], count: int) -> list[float]:
    """The coefficients of one component, one an ingredient.

    Raises:
        RecipeError: they are no numbers, or more or fewer.
    """
    values, called = data["coefficients"], beginning(data["name"], 60)
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise RecipeError(f"not a recipe: the coefficients of component '{called}' are no list of numbers")
    if len(values) != count:
        said = plural(len(values), "coefficient")
        raise RecipeError(f"not a recipe: component '{called}' has {said} for {plural(count, 'ingredient')}")
    return values


def _coefficients(recipe: Recipe) -> Grid:
    """The table of coefficients; of many components, their range."""
    carried = [(i.name, row) for i, row in zip(recipe.ingredients, recipe.coefficients, strict=True) if row.any()]
    if len(recipe.partition) <= COLUMNS:
        rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in carried]
        return grid(("model", *recipe.partition.names), rows)
    heads = ("model", "mean coefficient", "smallest", "largest")
    return grid(heads, [[name, *(f"{v:.3f}" for v in (row.mean(), row.min(), row.max()))] for name, row in carried])


def _tensor_hash(tensor: Tensor) -> str:
    import torch

    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + data).hexdigest()


@by_position
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Weights(Shown):
    """A merged state dict that no recipe can express (non-linear methods), with the lineage of where it came from."""

    tensors: Mapping[str, Tensor]
    ingredients: tuple[Ingredient, ...]
    strategy: str
    options: Mapping[str, Any]
    hash: str
    measured: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the ingredients; which of them carry weight, nobody knows."""
        return tuple(ingredient.name for ingredient in self.ingredients)

    def _sheet(self) -> Sheet:
        facts = (self.strategy, f"of {named(self.names, 'model')}", plural(len(self.tensors), "tensor", ","))
        return Sheet(name="Weights", facts=facts)


@dataclass(frozen=True, repr=False)
class Ensemble(Shown):
    """Averages the outputs of its members, and is no single model. Inference costs ``len(members)`` forward passes.

    Attributes:
        members: the models.
        weights: one a member, not negative, not all zero; their sum counts as 1.
        average: what is averaged.
    """

    members: tuple[Recipe, ...]
    weights: tuple[float, ...]
    average: Literal["logits", "probabilities"] = "logits"

    def __post_init__(self) -> None:
        if not self.members or len(self.members) != len(self.weights):
            raise RecipeError(f"an ensemble of {len(self.members)} members has {len(self.weights)} weights")
        if not (np.isfinite(self.weights).all() and min(self.weights) >= 0 and sum(self.weights) > 0):
            raise RecipeError("an ensemble's weights must not be negative, and not all zero")

    @property
    def ingredients(self) -> tuple[Ingredient, ...]:
        """Lists the ingredients of all members, each once."""
        return tuple(dict.fromkeys(i for member in self.members for i in member.ingredients))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the ingredients that carry weight in a member."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.names))

    def to_frame(self) -> DataFrame:
        """The members as a data frame: ``member`` (the names in it), ``models``, ``weight``.

        Raises:
            RequirementError: there is no pandas.
        """
        return frame(self._rows(), ("member", "models", "weight"))

    def _rows(self) -> list[dict[str, Any]]:
        pairs = zip(self.members, self.weights, strict=True)
        return [{"member": "+".join(m.names), "models": len(m.names), "weight": weight} for m, weight in pairs]

    def _sheet(self) -> Sheet:
        facts = (plural(len(self.members), "member"), f"averages {self.average}", f"of {named(self.names, 'model')}")
        rows = [[row["member"], f"{row['weight']:g}"] for row in self._rows()]
        return Sheet(name="Ensemble", facts=facts, grids=(grid(("member", "weight"), rows),))


Merge: TypeAlias = Recipe | Weights | Ensemble


def inference_cost(merged: Merge) -> int:
    """Forward passes that a merge takes for each sample: an ensemble one for each member, others one."""
    return len(merged.members) if isinstance(merged, Ensemble) else 1

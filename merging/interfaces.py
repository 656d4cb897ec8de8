"""The four kinds of plug-in, and what each is given to work with.

A plug-in is a frozen dataclass: its options are its fields (see :func:`merging.options.option`), its work is one
or two methods. Loops, budgets, counting, seeding, caching, journal and progress live in the core.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.options import Plugin
from merging.values.outcome import Decision, Outcome, Solution
from merging.values.partition import Partition, TensorInfo
from merging.values.recipe import Ingredient, Merge, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.storage.pool import ModelPool

Vector: TypeAlias = NDArray[np.float64]

NEEDS = frozenset({"base", "model", "objective", "train", "unlabelled", "gradients", "per_sample_gradients"})


@dataclass(frozen=True)
class Partitioner(Plugin):
    """Divides a model's tensors into components.

    ``example_tensors``: names for the contract test, where it understands only names of one kind.
    """

    example_tensors: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Groups the tensors.

        Args:
            tensors: name → (shape, dtype name), in the checkpoint's order.
            module: the model, where one is known; merging weights alone needs none.

        Raises:
            PartitionError: the names are not of the kind that this partitioner understands.
        """


@dataclass(frozen=True)
class Objective(Plugin):
    """Scores logits against labels; larger is better. No loop, no device: the evaluator has those.

    ``decomposable``: the score of a split is the mean of per-sample terms; ``bounds`` then limit one term, so
    that a threshold test may stop early (None: unbounded).
    """

    decomposable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Per-sample terms, shape ``(N,)``, of logits ``(N, classes)`` and labels ``(N,)`` int64."""

    @abstractmethod
    def reduce(self, terms: Tensor) -> float:
        """The score of all samples' terms (on the CPU, in the split's order)."""


@dataclass(frozen=True)
class WholeModelObjective(Plugin):
    """The way out for scores that are no function of one sample's logits (retrieval, generation): never staged."""

    @abstractmethod
    def measure(self, model: nn.Module, split: SplitView) -> float:
        """The score of a whole model on a split, larger is better."""


class SplitView(Protocol):
    """What a whole-model objective sees of a split: batches of (model inputs, labels) on the device."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


class Search(Protocol):
    """A box, a start, and a function to maximise in it: all that an optimiser sees.

    Attributes:
        lower, upper, start: shape ``(dimension,)``, ``lower <= start <= upper``.
        budget: how many points may be asked for, repeats included.
        generator: seeded; the only source of randomness an optimiser may use.
    """

    lower: Vector
    upper: Vector
    start: Vector
    budget: int
    generator: np.random.Generator

    @property
    def dimension(self) -> int:
        """Number of variables."""

    def evaluate(self, x: Vector) -> float:
        """The score at ``x``, which is brought into the box first.

        Raises:
            BudgetSpent: the budget is used up; let it through.
        """

    def evaluate_many(self, points: Sequence[Vector]) -> list[float]:
        """Scores of several points; a backend that can ask in batches should."""

    def solution(self, stopped: str) -> Solution:
        """The best point seen so far."""


@dataclass(frozen=True)
class Optimizer(Plugin):
    """Derivative-free search in a box.

    ``smallest_dimension``, ``deterministic`` (given the generator) and ``batch`` (asks for several points at once)
    declare a backend's limits. ``recommends``: the solution that it returns is taken as it is; of all others the best
    point seen is.
    """

    smallest_dimension: ClassVar[int] = 1
    deterministic: ClassVar[bool] = True
    batch: ClassVar[bool] = False
    recommends: ClassVar[bool] = False

    @abstractmethod
    def maximize(self, search: Search) -> Solution:
        """Asks ``search.evaluate`` for points until it is done; the core keeps the best and catches ``BudgetSpent``."""


class Progress(Protocol):
    """Where news of a run goes; the terminal shows it, a notebook may ignore it."""

    def stage(self, text: str, total: int | None = None) -> None:
        """A new piece of work begins; ``total`` steps where that is known."""

    def advance(self, steps: int = 1) -> None:
        """Some steps of the current piece are done."""

    def search(self, asked: int, budget: int, best: float) -> None:
        """One more point of a search was scored."""

    def best(self, outcome: Outcome, models: int) -> None:
        """The best merge so far, and how many models are in it."""

    def decision(self, facts: Mapping[str, Any]) -> None:
        """A strategy decided something; ``facts`` is what the journal holds."""

    def status(self, text: str) -> None:
        """How the current piece stands, in a few words; the next status takes its place."""

    def say(self, text: str) -> None:
        """A line worth keeping."""


Path: TypeAlias = Callable[[Vector], Outcome]
"""Mixing factors, one a component of the partition → what that mix scores on the held-out data."""


class Blend(Protocol):
    """What ``problem.blend`` gives: see :class:`merging.blend.Blend`."""

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` of the mix, its derivative by each coefficient, and by the scale.

        ``coefficients``: shape ``(rows, components)``; ``batch`` as :meth:`Problem.batches` yields them.
        """


class Problem(Protocol):
    """What a strategy is given. Everything it evaluates is counted, journalled and cached at one door."""

    @property
    def pool(self) -> ModelPool:
        """The checkpoints to merge."""

    @property
    def partition(self) -> Partition:
        """The components, one coefficient each; ``partition.active`` are those worth searching."""

    @property
    def generator(self) -> np.random.Generator:
        """Seeded; the only source of randomness a strategy may use."""

    @property
    def progress(self) -> Progress:
        """Where news goes."""

    def single(self, index: int) -> Recipe:
        """Model ``index`` of the pool as it is."""

    def mean(self, indices: Sequence[int]) -> Recipe:
        """The uniform average of some models of the pool."""

    def weights(
        self,
        strategy: MixStrategy,
        combine: Callable[[str, list[Tensor], Tensor | None], Tensor],
        *,
        base: bool = True,
    ) -> Weights:
        """A merge that no recipe can express.

        ``combine`` takes a tensor's name, it in every model of the pool and in the base (None without one), all
        float64, and returns the merged one. ``base=False``: the base is no ingredient, and None. Integer tensors and
        frozen components come from the first model.
        """

    def evaluate(self, merged: Merge) -> Outcome:
        """The outcome on the held-out data."""

    def rank(self) -> list[tuple[int, Outcome]]:
        """All models of the pool by held-out score, best first; ties in pool order."""

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        """Whether the held-out score is above the threshold; may stop once that is certain."""

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Path:
        """The function λ ↦ outcome of ``λ·incumbent + (1 − λ)·candidate`` per component, mixed in place on the device.

        ``mixing``: ``lerp``, or ``sum`` for λ·A + (1 − λ)·C rounded as the published code does.
        """

    def maximize(
        self,
        function: Callable[[Vector], Outcome],
        *,
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        rounded: bool = True,
    ) -> Solution:
        """Searches the box with the optimiser the user chose; ``--budget`` replaces ``budget``.

        ``rounded``: points are rounded to float32 first, so that a recipe can hold the very factors that were tried.
        """

    def logits(self, recipe: Recipe, split: str = "held-out") -> Tensor:
        """Logits of a whole split on the CPU, float32, shape ``(N, classes)``."""

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits, such as averaged ones; no model runs, and nothing is counted."""

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels) on the device, ``size`` samples at a time."""

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Cross-entropy of the merged model on a batch, and its derivative by every coefficient of the recipe."""

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """A few linear merges resident together, to be mixed with coefficients that are learned."""

    def labels(self, split: str = "held-out") -> Tensor:
        """Labels of a whole split on the CPU, int64, shape ``(N,)``."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that a strategy may use: ``held-out``, and ``train`` where there is some."""

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, *, sampled: bool = True
    ) -> Mapping[str, Tensor]:
        """Mean over samples of ``(∂ log p(y|x) / ∂θ)²`` for every parameter, float64 on the CPU.

        ``samples`` are drawn from the split at random; labels from the model's own predictions, or the data's.
        """

    def live(self, recipe: Recipe) -> nn.Module:
        """The model with the recipe's weights, open to autograd until the next evaluation."""

    def decide(self, **facts: Any) -> None:
        """Journals a decision and shows it; ``accepted=`` says which way it went."""

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Tells the core the best merge so far: what an interrupted run saves."""


@dataclass(frozen=True)
class MixStrategy(Plugin):
    """Turns a pool into a merge.

    ``needs`` says what must be there (a subset of ``NEEDS``), ``min_models`` how many checkpoints, ``gives`` what
    comes out (``recipe``, ``weights`` or ``ensemble``); the core checks all before any work begins. ``label`` is its
    name in tables, where that is another than the registered one.
    """

    label: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    min_models: ClassVar[int] = 1
    gives: ClassVar[str] = "recipe"
    ranks: ClassVar[bool] = True
    """Whether it scores every single model, where it needs an objective."""

    def parts(self) -> tuple[MixStrategy, ...]:
        """The strategies that are its options, such as the one that it works on top of."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if isinstance(value, MixStrategy))

    def requires(self) -> frozenset[str]:
        """What must be there for these very options: what it needs, and what its parts require."""
        return self.needs.union(*(part.requires() for part in self.parts()))

    def fewest(self) -> int:
        """How many models there must be, for it and for its parts."""
        return max([self.min_models, *(part.fewest() for part in self.parts())])

    def default_optimizer(self) -> str:
        """Name of the optimizer that its searches use where the user names none; its part's, where it has one."""
        return next((part.default_optimizer() for part in self.parts()), "nevergrad-cobyla")

    @abstractmethod
    def mix(self, problem: Problem) -> Merge:
        """The merge. Report decisions with ``problem.decide`` and the best so far with ``problem.keep``."""


__all__ = [
    "NEEDS",
    "Decision",
    "Ingredient",
    "MixStrategy",
    "Objective",
    "Optimizer",
    "Outcome",
    "Partitioner",
    "Path",
    "Problem",
    "Progress",
    "Search",
    "Solution",
    "SplitView",
    "Vector",
    "Weights",
    "WholeModelObjective",
]

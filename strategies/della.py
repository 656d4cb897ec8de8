"""DELLA: drop what fine-tuning changed at random, small changes more often (Deep et al. 2024)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from merging.errors import OptionError
from merging.mixing.task_vectors import TaskVectors
from merging.mixing.varying import amount_of, at
from merging.mixing.weighing import HELP
from merging.plugins.options import UNSET, option, varying_option
from merging.plugins.problem import Problem
from merging.plugins.profiles import Profile
from merging.plugins.registry import strategies
from merging.plugins.searched import numbers_in, searched
from merging.plugins.strategy import MixStrategy
from merging.plugins.varying import Varying
from merging.values.recipe import Weights


@strategies.register("della")
@dataclass(frozen=True, kw_only=True)
class Della(MixStrategy):
    """DELLA: changes dropped at random by the rank of their magnitude, the rest rescaled; a sign elected.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "DELLA"
    summary: ClassVar[str] = "drop small changes more often than large ones, rescale the rest, elect a sign"
    paper: ClassVar[str] = "Deep et al. 2024, §3, https://arxiv.org/abs/2406.11617"
    formula: ClassVar[str] = (
        "q = density − ε … density + ε, by the rank of |θ_i − θ_0| in its row; τ̂_i = m_i ⊙ (θ_i − θ_0) / q, "
        "m_i ~ Bernoulli(q) per entry; s = sign(Σ_i w_i τ̂_i); θ = θ_0 + λ · mean of the τ̂_i ≠ 0 whose sign is s "
        "(ties), or θ_0 + λ · Σ_i w_i τ̂_i (linear); w_i = 1 where none is given"
    )
    limits: ClassVar[str] = (
        "Made for language models of different tasks. Dropping is noise: for models of one task its expectation is the "
        "plain sum. ε is half the range of the probabilities, as merging tools have it; the paper's is the whole "
        "range. Ranks every row of every model. Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"
    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "della-linear": Profile(
            label="DELLA, linear",
            summary="drop small changes more often than large ones, rescale the rest, add them",
            description="DELLA without the election: ``della`` whose method nobody may set otherwise.",
            fixed=("method",),
        )
    }

    density: Varying = varying_option(0.5, "mean share of a row's changes that is kept", low=0.0, high=1.0, by="models")
    epsilon: Varying = varying_option(
        0.15, "ε, how far the probabilities of a row's ends lie from density", low=0.0, high=0.5, by="models"
    )
    method: str = option(
        UNSET,
        "how the rest is merged",
        choices=("ties", "linear"),
        profiles={"della": "ties", "della-linear": "linear"},
    )
    scale: Varying | None = varying_option(
        None, "λ; none: 1 for ties, 1/n for linear", low=-4.0, high=4.0, by="components"
    )
    weights: tuple[str, ...] = option((), f"w_i, 1 for models that are not named: {HELP}")
    normalize: bool | None = option(None, "divide by the weights of what counts; none: yes for ties, no for linear")
    rescale: str = option(
        "probability",
        "divide what stays by its probability, or give each tensor's change the sum of magnitudes that it had, or "
        "neither",
        choices=("probability", "l1", "none"),
    )
    profile: str = option("della", "the name it goes by", choices=("della", "della-linear"))

    def __post_init__(self) -> None:
        """Checks that all probabilities are some.

        Raises:
            OptionError: one is 0 or less, or more than 1; or a value is outside its range.
        """
        super().__post_init__()
        sought = {"density", "epsilon"} & {*searched(self)}
        if sought or not (isinstance(self.density, tuple) or isinstance(self.epsilon, tuple)):
            for density in numbers_in(self, "density"):
                self._check(density, max(numbers_in(self, "epsilon")), searched=bool(sought))

    def _check(self, density: float, epsilon: float, *, searched: bool = False) -> None:
        """Refuses probabilities that are none; in a search those next to its bounds are probabilities too."""
        within = density > epsilon and density + epsilon <= 1
        if not within and (0 < density < 1 or searched):
            most = f"with density {density:g} at most {min(density, 1 - density):g}"
            raise OptionError(
                f"{self.called('epsilon')} is {epsilon:g}, but density − epsilon must be above 0 and density + epsilon "
                f"at most 1: {'give the search bounds, such as density=search:0.2..0.8' if searched else most}"
            )

    def default_number(self, option: str, problem: Problem) -> float | None:
        """1/n for λ of a sum, 1 for that of an election."""
        return None if option != "scale" else 1.0 if self.method == "ties" else 1.0 / len(problem.pool)

    def mix(self, problem: Problem) -> Weights:
        """The weights, computed tensor by tensor; what is dropped follows from the seed, model and tensor alone."""
        from merging.mixing.thinning import ByRank

        elect = self.method == "ties"
        density, epsilon = (amount_of(self, name, problem) for name in ("density", "epsilon"))
        for model, tensor in itertools.product(range(len(problem.pool)), sorted(problem.pool.mixable)):
            self._check(at(density, model, tensor), at(epsilon, model, tensor))
        seed = int(problem.generator.integers(1 << 32))
        return TaskVectors(
            thin=ByRank(density, epsilon, seed, unbiased=self.rescale == "probability"),
            l1=self.rescale == "l1",
            elect=elect,
            normalise=elect if self.normalize is None else self.normalize,
            weights=self.weights,
            scale=amount_of(self, "scale", problem),
        ).merge(problem, self)

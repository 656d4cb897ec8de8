"""ManifoldMixMS, the manifold mixing model soup (Fassold 2023, https://arxiv.org/abs/2309.08610 §3).

Models are tried best first. Where the running average with the next one is promising, a derivative-free search finds
one mixing factor per component that maximises the held-out score; the mix is kept if it is better.

Two named profiles: ``paper`` does what the text says, ``reference`` what the published code does. They differ in
bounds, passes, tests and rounding; a profile sets what the user leaves unset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from merging.moved import by_position
from merging.plugins.ahead import Attempt
from merging.plugins.optimizer import Vector
from merging.plugins.options import UNSET, option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe


@dataclass(frozen=True)
class _Soup:
    """The incumbent: its recipe, what it scored, the score of record that decides, and how many models are in it."""

    recipe: Recipe
    outcome: Outcome
    score: float
    models: int


@dataclass(frozen=True)
class _Incumbent:
    """What a search needs to know of a soup."""

    recipe: Recipe
    score: float
    models: int


@dataclass(frozen=True)
class _Tried:
    """What trying a candidate gave: the soup, None where it is not better; what is to be said; why none was tried."""

    soup: _Soup | None
    facts: dict[str, Any]
    why: str = ""


@dataclass(frozen=True)
class _Singles:
    """The single models: the best one, and of each the mean of its score and the best one's."""

    problem: Problem
    best: int
    means: dict[int, float]


@strategies.register("manifoldmix")
@by_position
@dataclass(frozen=True, kw_only=True)
class ManifoldMix(MixStrategy):
    """Greedy over models, with one optimised mixing factor λ per component.

    A ← λ ⊙ A + (1 − λ) ⊙ C, with λ starting from k/(k + 1), the running average of k models and the candidate C.
    """

    label: ClassVar[str] = "manifold mix"
    summary: ClassVar[str] = "greedy over models, one optimised mixing factor per component"
    paper: ClassVar[str] = "Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = (
        "for each promising model C, best first: A_m ← λ_m · A_m + (1 − λ_m) · C_m in every component m, with "
        "λ = argmax score(λ ⊙ A + (1 − λ) ⊙ C), if the score rises"
    )
    limits: ClassVar[str] = (
        "Costs up to one search (250 evaluations by default) for each promising model, where greedy needs one "
        "evaluation. Fits more numbers to the held-out data than greedy does: with few held-out samples or many "
        "components part of the gain is luck. Models must share their fine-tuning start."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})
    min_models: ClassVar[int] = 2

    profile: str = option("paper", "defaults of the paper's text or of its code", choices=("paper", "reference"))
    tau: float = option(
        UNSET,
        "promising: the average scores above incumbent − (1 − tau)·|incumbent|",
        low=0.0,
        high=1.0,
        profiles={"paper": 0.998, "reference": 0.998},
    )
    budget: int = option(
        UNSET, "evaluations per search (0: budget_per_variable)", low=0, profiles={"paper": 250, "reference": 0}
    )
    budget_per_variable: int = option(
        UNSET, "evaluations per search and variable, where budget is 0", low=1, profiles={"paper": 30, "reference": 30}
    )
    lower: float = option(
        UNSET, "lower bound of λ in the first search", low=-1.0, high=1.0, profiles={"paper": 0.0, "reference": 0.0}
    )
    upper: float = option(
        UNSET, "upper bound of λ in the first search", low=0.0, high=2.0, profiles={"paper": 1.0, "reference": 1.0}
    )
    reach: float | None = option(
        UNSET,
        "first search only within start ± reach·(1 − start); none: all of [lower, upper]",
        low=0.0,
        high=1.0,
        profiles={"paper": None, "reference": 0.5},
    )
    passes: int = option(
        UNSET, "searches per accepted candidate at the most", low=1, high=3, profiles={"paper": 1, "reference": 3}
    )
    later_lower: float = option(0.3, "lower bound of λ in the second and third search", low=-1.0, high=1.0)
    later_upper: float = option(1.0, "upper bound of λ in the second and third search", low=0.0, high=2.0)
    accept_ties: bool = option(
        UNSET, "'promising' and 'better' include equal scores", profiles={"paper": False, "reference": True}
    )
    skip_inert: bool = option(
        UNSET, "search only components that can change the score", profiles={"paper": True, "reference": False}
    )
    mixing: str = option(
        UNSET,
        "trial arithmetic in fp32: lerp, or λ·A + (1 − λ)·C",
        choices=("lerp", "sum"),
        profiles={"paper": "lerp", "reference": "sum"},
    )
    rescore: bool = option(
        UNSET,
        "score the rebuilt mix again; that score decides",
        profiles={"paper": True, "reference": False},
    )
    near_misses: bool = option(
        UNSET,
        "also score the running average of rejected candidates (reported only)",
        profiles={"paper": False, "reference": True},
    )
    later_first: bool = option(
        UNSET,
        "of models with equal scores the later in the pool is tried first",
        profiles={"paper": False, "reference": True},
    )
    barrier: float | None = option(
        UNSET,
        "skip a candidate whose midpoint with the best model scores this much below their mean; none: no probe",
        low=0.0,
        profiles={"paper": 0.05, "reference": None},
    )
    early: bool = option(
        False, "stop scoring an average once it is known whether it is promising: same soup, fewer passes", later=True
    )

    def default_optimizer(self) -> str:
        """The published code's own calls of Nevergrad in the profile that reproduces it."""
        return "nevergrad-reference" if self.profile == "reference" else super().default_optimizer()

    def mix(self, problem: Problem) -> Recipe:
        """Goes once through the models, best first, and searches the factors of each promising one."""
        ranking = problem.rank()
        if self.later_first:
            ranking.sort(key=lambda pair: (pair[1].score, pair[0]), reverse=True)
        best, outcome = ranking[0]
        soup = _Soup(problem.single(best), outcome, outcome.score, 1)
        problem.keep(soup.recipe, soup.outcome)
        problem.progress.stage("manifold mix", len(ranking) - 1)
        rejected: list[int] = []
        singles = _Singles(problem, best, {index: (outcome.score + alone.score) / 2 for index, alone in ranking})
        order = [index for index, _ in ranking[1:]]
        for place, index in enumerate(order):
            if not self.early:
                problem.ahead(self._attempt(soup, singles, later) for later in order[place:])
            attempt = self._given(soup, singles, index)
            promising, average = self._promising(problem, soup, attempt["candidate"], attempt["start"])
            facts = {"candidate": problem.pool.names[index], "incumbent": soup.score, **average}
            if not promising:
                problem.decide(**facts, accepted=False, why="not promising")
                problem.progress.advance()
                continue
            tried = problem.apart(self._try, **attempt)
            facts |= tried.facts
            if tried.why:
                problem.decide(**facts, accepted=False, why=tried.why)
            else:
                if tried.soup is None:
                    rejected.append(index)
                    if self.near_misses:
                        self._near_misses(problem, soup, rejected, facts)
                else:
                    soup = tried.soup
                    problem.keep(soup.recipe, soup.outcome)
                problem.decide(**facts, accepted=tried.soup is not None)
            problem.progress.advance()
        return soup.recipe

    def _given(self, soup: _Soup, singles: _Singles, index: int) -> dict[str, Any]:
        """What trying a candidate takes: values, so that it may be tried elsewhere."""
        return {
            "incumbent": soup.recipe,
            "score": soup.score,
            "models": soup.models,
            "candidate": singles.problem.single(index),
            "start": soup.models / (soup.models + 1),
            "midpoint": singles.problem.single(singles.best).lerp(singles.problem.single(index), 0.5),
            "mean": singles.means[index],
        }

    def _attempt(self, soup: _Soup, singles: _Singles, index: int) -> Attempt:
        """A candidate against the present incumbent, as it would be tried."""
        given, threshold = self._given(soup, singles, index), self._threshold(soup.score)
        return Attempt(
            soup.recipe.lerp(given["candidate"], given["start"]),
            lambda outcome: self._above(outcome.score, threshold),
            partial(self._try, **given),
        )

    def _promising(self, problem: Problem, soup: _Soup, candidate: Recipe, start: float) -> tuple[bool, dict[str, Any]]:
        """Whether the running average with a candidate is worth a search, and what is known of its score."""
        average, threshold = soup.recipe.lerp(candidate, start), self._threshold(soup.score)
        if self.early:
            probed = self.barrier is not None and soup.models == 1  # the midpoint is this average, then
            decision = problem.scores.exceeds(average, threshold, ties=self.accept_ties, whole=probed)
            return decision.exceeds, decision.facts("average")
        score = problem.evaluate(average).score
        return self._above(score, threshold), {"average": score}

    def _threshold(self, score: float) -> float:
        """``score − (1 − τ)·|score|``, rounded as the published code's ``τ · score`` is: that decides ties."""
        return (self.tau if score >= 0 else 2 - self.tau) * score

    def _above(self, score: float, threshold: float) -> bool:
        return score >= threshold if self.accept_ties else score > threshold

    def _try(
        self,
        problem: Problem,
        *,
        incumbent: Recipe,
        score: float,
        models: int,
        candidate: Recipe,
        start: float,
        midpoint: Recipe,
        mean: float,
    ) -> _Tried:
        """Probes a promising candidate's basin and searches its factors; ``midpoint`` and ``mean`` are with the best.

        Two models of one basin lose little half-way between them; a search elsewhere would be wasted.
        """
        facts: dict[str, Any] = {}
        if self.barrier is not None:
            facts["midpoint"] = problem.evaluate(midpoint).score
            if mean - facts["midpoint"] > self.barrier:
                return _Tried(None, facts, "in another basin than the best model")
        soup = self._search(problem, _Incumbent(incumbent, score, models), candidate, start, facts)
        return _Tried(soup, facts)

    def _search(
        self, problem: Problem, soup: _Incumbent, candidate: Recipe, start: float, facts: dict[str, Any]
    ) -> _Soup | None:
        """One to three searches; None where the result is not better than the incumbent."""
        columns = list(problem.partition.active if self.skip_inert else range(len(problem.partition)))
        path = problem.search.between(soup.recipe, candidate, mixing=self.mixing)

        def expand(x: Vector) -> Vector:
            factors = np.full(len(problem.partition), start)
            factors[columns] = x
            return factors

        scores: list[float] = []
        x = np.full(len(columns), start)
        for number in range(self.passes):
            lower, upper = self._box(number, start, len(columns))
            solution = problem.search.maximize(
                lambda point: path(expand(point)),
                lower=lower,
                upper=upper,
                start=np.clip(x, lower, upper),
                budget=self.budget or self.budget_per_variable * len(columns),
                rounded=self.mixing == "lerp",
                components=columns,
            )
            tried, x = solution.x, solution.x.astype(np.float32).astype(np.float64)
            scores.append(solution.score)
            # The code searches a third time only after a second search that gained 0.3·(1 − tau) of its score.
            enough = 1 + 0.3 * (1 - self.tau)
            if not self._above(solution.score, soup.score) or (number and scores[-1] < enough * scores[-2]):
                break
        facts["searches"] = scores
        if not self._above(scores[0], soup.score):
            return None
        mixed = soup.recipe.lerp(candidate, expand(x))
        facts["factors"] = [float(factor) for factor in expand(x)]
        if not self.rescore:
            # A first search that succeeded decides in the published code, whatever the later ones return; the score
            # of record is what the optimiser returned.
            return _Soup(mixed, path(expand(tried)), scores[-1], soup.models + 1)
        outcome = problem.evaluate(mixed)
        facts["rescored"] = outcome.score
        better = self._above(outcome.score, soup.score)
        return _Soup(mixed, outcome, outcome.score, soup.models + 1) if better else None

    def _box(self, number: int, start: float, dimension: int) -> tuple[Vector, Vector]:
        if number:
            lower, upper = self.later_lower, self.later_upper
        elif self.reach is None:
            lower, upper = self.lower, self.upper
        else:
            half = self.reach * (1 - start)
            lower, upper = max(self.lower, start - half), min(self.upper, start + half)
        return np.full(dimension, lower), np.full(dimension, upper)

    def _near_misses(self, problem: Problem, soup: _Soup, rejected: list[int], facts: dict[str, Any]) -> None:
        together = problem.mean(rejected)
        facts["near_misses"] = problem.evaluate(together).score
        start = soup.models / (soup.models + 1)
        facts["near_misses_with_incumbent"] = problem.evaluate(soup.recipe.lerp(together, start)).score

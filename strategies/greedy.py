"""The greedy soup: a model joins the running average when held-out accuracy rises (Wortsman et al. 2022, Recipe 1)."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe


@strategies.register("greedy")
@dataclass(frozen=True)
class Greedy(MixStrategy):
    """Goes through the models once, best first or in random orders, and keeps what helps.

    Random orders show how much luck is in the sorted one: the best of them is returned, the mean and the spread of
    all are reported.
    """

    label: ClassVar[str] = "greedy soup"
    summary: ClassVar[str] = "add models to the average while held-out score rises"
    paper: ClassVar[str] = "Wortsman et al. 2022, Recipe 1, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = (
        "for each model θ_i, best first: S ← S ∪ {i} if score(mean of S ∪ {i}) > score(mean of S); θ = mean of S"
    )
    limits: ClassVar[str] = (
        "Costs 2n − 1 evaluations for n models (each random order n − 1 more). Goes through the models once and never "
        "takes one out again, so its result depends on the order; gains below the noise of the held-out set are luck."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})
    min_models: ClassVar[int] = 2

    order: str = option("sorted", "the order in which models are tried", choices=("sorted", "random"))
    orders: int = option(3, "number of random orders (with order=random)", low=1)
    accept_ties: bool = option(False, "accept an equal score too (Recipe 1 says >=, the published code >)")
    early: bool = option(
        False, "stop scoring a candidate once it cannot be accepted: same soup, fewer passes", later=True
    )

    def mix(self, problem: Problem) -> Recipe:
        """Makes a soup for each order, and takes the one with the highest held-out score."""
        ranking = [index for index, _ in problem.rank()]
        if self.order == "sorted":
            return self._pass(problem, ranking)[0]
        soups = []
        orders = [[int(i) for i in problem.generator.permutation(ranking)] for _ in range(self.orders)]
        for number, order in enumerate(orders):
            problem.progress.say(f"greedy, random order {number + 1} of {self.orders}")
            problem.ahead(partial(self._pass, order=later) for later in orders[number:])
            soups.append(problem.apart(self._pass, order=order))
        scores = [outcome.score for _, outcome in soups]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        problem.decide(orders=self.orders, mean=statistics.fmean(scores), spread=spread, best=max(scores))
        return max(soups, key=lambda soup: soup[1].score)[0]

    def _pass(self, problem: Problem, order: list[int]) -> tuple[Recipe, Outcome]:
        chosen = order[:1]
        soup = problem.single(order[0])
        best = problem.evaluate(soup)
        problem.keep(soup, best)
        problem.progress.stage("greedy soup", len(order) - 1)
        for place, index in enumerate(order[1:], 1):
            trial = problem.mean([*chosen, index])
            if self.order == "sorted" and not self.early:  # of random orders each is a piece of its own
                problem.ahead(problem.mean([*chosen, later]) for later in order[place:])
            outcome, average = self._looked_at(problem, trial, best.score)
            accepted = outcome is not None
            problem.decide(candidate=problem.pool.names[index], incumbent=best.score, **average, accepted=accepted)
            if outcome is not None:
                chosen, soup, best = [*chosen, index], trial, outcome
                problem.keep(soup, best)
            problem.progress.advance()
        return soup, best

    def _looked_at(self, problem: Problem, trial: Recipe, best: float) -> tuple[Outcome | None, dict[str, Any]]:
        """The outcome of a candidate's average where it is accepted, and what is known of its score."""
        if self.early:
            decision = problem.scores.exceeds(trial, best, ties=self.accept_ties, whole=True)
            return (decision.outcome if decision.exceeds else None), decision.facts("average")
        outcome = problem.evaluate(trial)
        accepted = outcome.score > best or (self.accept_ties and outcome.score == best)
        return (outcome if accepted else None), {"average": outcome.score}

"""Nevergrad's optimisers, by name, and its Cobyla: the one that its NGOpt picked in Fassold's published runs.

Nevergrad wraps SciPy's COBYLA: the box is standardised (one unit is a sixth of its width), bounds are kept by
reflection, and the method restarts from its best point until the budget is spent.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from merging.plugins.optimizer import Optimizer, Search
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution

METHODS = ("NGOpt", "Cobyla", "OnePlusOne", "CMA", "TwoPointsDE", "DE", "PSO", "NelderMead", "Powell")
"""The methods of Nevergrad that the contract tests run."""


@optimizers.register("nevergrad")
@dataclass(frozen=True)
class Nevergrad(Optimizer):
    """Any of a list of Nevergrad's methods; spends the whole budget.

    ``NGOpt`` picks a method by dimension and budget, so that another budget may mean another method.
    """

    summary: ClassVar[str] = "a Nevergrad method by name: NGOpt, OnePlusOne, CMA, DE, PSO, …"
    paper: ClassVar[str] = "Rapin & Teytaud 2018, https://github.com/facebookresearch/nevergrad"
    formula: ClassVar[str] = "ask x_t, tell 1 − score(x_t), for t = 1 … budget; the best x_t seen"
    limits: ClassVar[str] = (
        "Population methods (CMA, DE, PSO) need several hundred evaluations to overtake Cobyla. NGOpt and Cobyla run "
        "SciPy in a thread of their own, and ask one point at a time."
    )

    method: str = option("NGOpt", "which of Nevergrad's methods", choices=METHODS)

    def maximize(self, search: Search) -> Solution:
        """Asks and tells one point at a time."""
        return run_nevergrad(search, self.method)


@optimizers.register("nevergrad-cobyla")
@dataclass(frozen=True)
class NevergradCobyla(Optimizer):
    """Nevergrad's Cobyla, chosen by name, so that the method is the same for every dimension and budget.

    It spends the whole budget.
    """

    summary: ClassVar[str] = "Nevergrad's Cobyla, as in the published runs"
    paper: ClassVar[str] = "Rapin & Teytaud 2018, https://github.com/facebookresearch/nevergrad"
    formula: ClassVar[str] = "linear models of the score on a shrinking simplex, restarted from the best x seen"
    limits: ClassVar[str] = (
        "Nevergrad's first step is a sixth of the box. Moves all factors at once, so that no part of a forward pass "
        "can be kept from one trial to the next."
    )

    def maximize(self, search: Search) -> Solution:
        """Asks and tells one point at a time."""
        return run_nevergrad(search, "Cobyla")


@optimizers.register("nevergrad-reference")
@dataclass(frozen=True)
class NevergradReference(Optimizer):
    """Nevergrad as the published code of ManifoldMixMS calls it, so that equal scores lead to equal points.

    An instrumented array of shape (1, variables), one and the same seed before every search, NGOpt with the budget,
    ``1 − score`` minimised, and Nevergrad's recommendation taken, with ``1 − loss`` as its score.
    """

    recommends: ClassVar[bool] = True
    summary: ClassVar[str] = "Nevergrad as the published code of ManifoldMixMS calls it"
    paper: ClassVar[str] = "the code of Fassold 2023, https://github.com/hfassold/manifold_mixing_model_soups"
    formula: ClassVar[str] = "x = NGOpt(1 − score, seed 123456789).minimize(); the score is 1 − (1 − score(x))"
    limits: ClassVar[str] = (
        "For comparing with the published runs. The same seed before every search: a run's own seed changes nothing. "
        "NGOpt picks Cobyla while the budget is at most 50 evaluations a variable. 1 − (1 − score) differs from the "
        "score in the last bit for a third of all accuracies, which decides ties."
    )

    seed: int = option(123456789, "of Nevergrad, set before each search", low=0)

    def maximize(self, search: Search) -> Solution:
        """Calls Nevergrad's ``minimize`` once."""
        ng = import_nevergrad()
        lower, upper = (bound.reshape(1, -1) for bound in (search.lower, search.upper))
        array = ng.p.Array(init=search.start.reshape(1, -1), lower=lower, upper=upper)
        instrumented = ng.p.Instrumentation(factors=array)
        instrumented.random_state.seed(self.seed)
        with scalars_mended():
            optimizer = ng.optimizers.NGOpt(parametrization=instrumented, budget=search.budget)
            with stopping_its_thread(optimizer):
                found = optimizer.minimize(lambda factors: 1.0 - search.evaluate(factors[0]))
        return Solution(found.kwargs["factors"][0], 1.0 - found.loss, search.budget, "budget spent")


def run_nevergrad(search: Search, method: str) -> Solution:
    """Spends a search's budget with one of Nevergrad's methods."""
    ng = import_nevergrad()
    array = ng.p.Array(init=search.start, lower=search.lower, upper=search.upper)
    array.random_state.seed(int(search.generator.integers(2**32)))
    with scalars_mended():
        optimizer = ng.optimizers.registry[method](parametrization=array, budget=search.budget)
        with stopping_its_thread(optimizer):
            for _ in range(search.budget):
                point = optimizer.ask()
                optimizer.tell(point, 1.0 - search.evaluate(point.value))
    return search.solution("budget spent")


def import_nevergrad() -> Any:
    """Imports Nevergrad, silencing the deprecation warnings of its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nevergrad
    # SciPy's complaints about the last, short restart come from Nevergrad's thread, perhaps after the search has ended.
    warnings.filterwarnings("ignore", message="COBYLA: Invalid", category=UserWarning)
    return nevergrad


@contextlib.contextmanager
def stopping_its_thread(optimizer: Any) -> Iterator[None]:
    """Ends the non-daemon thread in which Nevergrad runs SciPy; else an exception would leave the process hanging."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for found in (optimizer, getattr(optimizer, "_optim", None)):  # NGOpt keeps the method it picked there
            thread = getattr(found, "_messaging_thread", None)
            if thread is not None:
                thread.stop()


@contextlib.contextmanager
def scalars_mended() -> Iterator[None]:
    """Lets Nevergrad's surrogate models run on NumPy 2.4, where ``float(array([x]))`` is an error.

    They call ``float`` on predictions of shape ``(1,)``; NGOpt with 3 variables and a budget of 240 ends there
    (Nevergrad 1.0.12), and the thread of its inner method then keeps the process alive.
    """
    from nevergrad.optimization import metamodel

    def scalar(value: Any) -> float:
        return float(np.asarray(value).item())

    there = vars(metamodel)
    before = there.get("float")  # of a search around this one
    there["float"] = scalar
    try:
        yield
    finally:
        if before is None:
            there.pop("float", None)
        else:
            there["float"] = before

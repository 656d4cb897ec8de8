"""Nevergrad's Cobyla: the optimiser that its NGOpt picked in Fassold's published runs, called directly.

Nevergrad wraps SciPy's COBYLA: the box is standardised (one unit is a sixth of its width), bounds are kept by
reflection, and the method restarts from its best point until the budget is spent.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from merging.interfaces import Optimizer, Search
from merging.outcome import Solution
from merging.registry import optimizers


@optimizers.register("nevergrad-cobyla")
@dataclass(frozen=True)
class NevergradCobyla(Optimizer):
    """Spends the whole budget. Choosing it by name keeps the method the same for every dimension and budget."""

    summary: ClassVar[str] = "Nevergrad's Cobyla, as in the published runs"
    paper: ClassVar[str] = "Rapin & Teytaud 2018, https://github.com/facebookresearch/nevergrad"

    def maximize(self, search: Search) -> Solution:
        """Asks and tells one point at a time."""
        ng = import_nevergrad()
        array = ng.p.Array(init=search.start, lower=search.lower, upper=search.upper)
        array.random_state.seed(int(search.generator.integers(2**32)))
        optimizer = ng.optimizers.registry["Cobyla"](parametrization=array, budget=search.budget)
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
    return nevergrad


@contextlib.contextmanager
def stopping_its_thread(optimizer: Any) -> Iterator[None]:
    """Ends the non-daemon thread in which Nevergrad runs SciPy; else an exception would leave the process hanging."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        thread = getattr(optimizer, "_messaging_thread", None)
        if thread is not None:
            thread.stop()

"""SciPy's COBYLA (Powell 1994): linear models on a simplex within a shrinking trust region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.optimizer import Optimizer, Search, in_unit_box
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution


@optimizers.register("scipy-cobyla")
@dataclass(frozen=True)
class ScipyCobyla(Optimizer):
    """COBYLA with the box scaled to [0, 1] and its bounds as constraints.

    SciPy's own first step of 1.0 leaves the box at once; a quarter of the box explores it.
    """

    summary: ClassVar[str] = "SciPy's COBYLA, first step a quarter of the box"
    paper: ClassVar[str] = "Powell 1994, https://doi.org/10.1007/978-94-015-8330-5_4"
    formula: ClassVar[str] = (
        "x_{t+1} = argmax of a linear model of the score within radius ρ_t, which shrinks to the tolerance"
    )
    limits: ClassVar[str] = (
        "A local method: it follows one slope. On a plateau of the accuracy it shrinks at once and ends before the "
        "budget; a larger step helps."
    )

    step: float = option(0.25, "first step, as a share of the box", low=1e-6, high=1.0)
    tolerance: float = option(1e-3, "last step, as a share of the box; reaching it ends the search", low=0.0, high=1.0)

    def maximize(self, search: Search) -> Solution:
        """Runs until the trust region is as small as the tolerance, or the budget is spent."""
        from scipy.optimize import minimize

        loss, start = in_unit_box(search)
        minimize(
            loss,
            start,
            method="COBYLA",
            bounds=[(0.0, 1.0)] * search.dimension,
            # BudgetSpent ends the search; SciPy itself insists on room for its first simplex.
            options={"rhobeg": self.step, "maxiter": max(search.budget, search.dimension + 2)},
            tol=self.tolerance,
        )
        return search.solution("converged")

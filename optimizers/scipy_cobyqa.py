"""SciPy's COBYQA (Ragonneau 2022): quadratic models in a trust region, bounds always kept."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from merging.plugins.optimizer import Optimizer, Search, in_unit_box
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution


@optimizers.register("scipy-cobyqa")
@dataclass(frozen=True)
class ScipyCobyqa(Optimizer):
    """COBYQA with the box scaled to [0, 1]; the successor of COBYLA, by SciPy's own advice."""

    summary: ClassVar[str] = "SciPy's COBYQA: quadratic models in a trust region"
    paper: ClassVar[str] = "Ragonneau 2022, https://theses.lib.polyu.edu.hk/handle/200/12294"
    formula: ClassVar[str] = "x_{t+1} = argmax of a quadratic model of the score within radius ρ_t and the box"
    limits: ClassVar[str] = (
        "Its first model takes 2m + 1 evaluations for m components. A local method: on a plateau of the accuracy it "
        "ends before the budget."
    )

    step: float = option(0.25, "first radius, as a share of the box", low=1e-6, high=0.5)
    tolerance: float = option(1e-3, "last radius, as a share of the box; it ends the search", low=0.0, high=0.5)

    def maximize(self, search: Search) -> Solution:
        """Runs until the trust region is as small as the tolerance, or the budget is spent."""
        from scipy.optimize import minimize

        loss, start = in_unit_box(search)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says so where it adjusts a radius to the bounds
            minimize(
                loss,
                start,
                method="COBYQA",
                bounds=[(0.0, 1.0)] * search.dimension,
                options={
                    "initial_tr_radius": self.step,
                    "final_tr_radius": min(self.tolerance, self.step),
                    # BudgetSpent ends the search; these only must not end it earlier.
                    "maxfev": max(search.budget + 1, 2 * search.dimension + 2),
                    "maxiter": 100 * max(search.budget, search.dimension),
                },
            )
        return search.solution("converged")

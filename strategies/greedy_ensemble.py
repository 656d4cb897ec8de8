"""Greedy ensemble selection from a library of models (Caruana et al. 2004), from logits that are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from merging.errors import OptionError
from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Ensemble

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("greedy-ensemble")
@dataclass(frozen=True)
class GreedyEnsemble(MixStrategy):
    """Starts with the best model and adds the one whose outputs help most, while the held-out score rises."""

    label: ClassVar[str] = "greedy ensemble"
    summary: ClassVar[str] = "add models' outputs to the average while held-out score rises"
    paper: ClassVar[str] = "Caruana et al. 2004, §2, https://doi.org/10.1145/1015330.1015432"
    formula: ClassVar[str] = "S ← S ∪ {argmax_i score(mean of f_j, j ∈ S ∪ {i})} while the score rises; f = mean of S"
    limits: ClassVar[str] = (
        "Every prediction costs a forward pass for each member. Held-out logits of all models are in memory (samples × "
        "classes × 4 bytes each). Wortsman et al. 2022 report a greedy ensemble without saying how it is selected; "
        "order=sorted goes through the models once, as the greedy soup does. Costs one evaluation per model."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})
    gives: ClassVar[str] = "ensemble"

    average: str = option("logits", "what is averaged", choices=("logits", "probabilities"))
    order: str = option(
        "best", "try every model at each step, or each one once, best first", choices=("best", "sorted")
    )
    replacement: bool = option(False, "a model may be added again, and then counts twice (with order=best)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replacement and self.order == "sorted":
            raise OptionError("option 'replacement' of 'greedy-ensemble' goes with order=best, not with order=sorted")

    def requires(self) -> frozenset[str]:
        """Requires classes too where probabilities are averaged."""
        return super().requires() | ({"classes"} if self.average == "probabilities" else set())

    def mix(self, problem: Problem) -> Ensemble:
        """Selects members one by one; ties go to the earlier model in the ranking."""
        problem.progress.stage("outputs of the models", len(problem.pool))
        problem.scores.foresee([problem.single(index) for index in range(len(problem.pool))])
        outputs = [self._output(problem, index) for index in range(len(problem.pool))]
        ranking = problem.rank()
        order = [index for index, _ in ranking]
        total, counts, best = outputs[order[0]].clone(), {order[0]: 1}, ranking[0][1].score
        problem.progress.stage("selecting members", len(order) - 1)
        waiting = order[1:]
        while waiting or self.replacement:
            tried = waiting[:1] if self.order == "sorted" else order if self.replacement else waiting
            scores = {index: self._score(problem, total + outputs[index], sum(counts.values()) + 1) for index in tried}
            chosen = max(scores, key=lambda index: scores[index])
            accepted = scores[chosen] > best
            problem.decide(
                candidate=problem.pool.names[chosen], incumbent=best, average=scores[chosen], accepted=accepted
            )
            problem.progress.advance()
            if accepted:
                total, best = total.add_(outputs[chosen]), scores[chosen]
                counts[chosen] = counts.get(chosen, 0) + 1
            elif self.order == "best":
                break
            waiting = [index for index in waiting if index != chosen]
            if self.order == "sorted" and not waiting:
                break
        members = tuple(problem.single(index) for index in counts)
        weights = tuple(float(count) for count in counts.values())
        return Ensemble(members, weights, cast("Literal['logits', 'probabilities']", self.average))

    def _output(self, problem: Problem, index: int) -> Tensor:
        logits = problem.scores.logits(problem.single(index))
        problem.progress.advance()
        return logits if self.average == "logits" else logits.softmax(1)

    def _score(self, problem: Problem, total: Tensor, members: int) -> float:
        mean = total / members
        return problem.scores.score(mean if self.average == "logits" else mean.log())

"""The top-k soup: the average of the k best models, with k chosen on the held-out data."""

from dataclasses import dataclass

import merging
from merging.plugins.registry import strategies


@strategies.register("top-k")
@dataclass(frozen=True)
class TopK(merging.MixStrategy):
    """Scores the averages of the best 1, 2, … models and returns the best of them."""

    summary = "the average of the k best models, k chosen on held-out data"
    needs = frozenset({"model", "objective"})

    largest: int = merging.option(8, "largest k that is tried", low=1)

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """One evaluation a model, and one for each k above 1."""
        ranking = [index for index, _ in problem.rank()]
        best = problem.single(ranking[0])
        for k in range(1, min(self.largest, len(ranking)) + 1):
            soup = problem.mean(ranking[:k])
            outcome, before = problem.evaluate(soup), problem.evaluate(best)
            problem.decide(k=k, score=outcome.score)
            best = soup if outcome.score > before.score else best
            problem.keep(soup, outcome)
        return best

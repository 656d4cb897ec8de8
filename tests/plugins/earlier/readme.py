from dataclasses import dataclass
from typing import ClassVar

from merging import MixStrategy, option
from merging.plugins.registry import strategies


@strategies.register("top-k")
@dataclass(frozen=True)
class TopK(MixStrategy):
    """The average of the k best models."""

    summary: ClassVar[str] = "the average of the k best models"
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})

    k: int = option(3, "how many models", low=1)

    def mix(self, problem):
        return problem.mean([index for index, _ in problem.rank()[: self.k]])

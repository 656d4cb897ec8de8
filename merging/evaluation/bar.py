"""What a threshold test asks of a score."""

from __future__ import annotations

from dataclasses import dataclass

from merging.values.outcome import Decision, Outcome


@dataclass(frozen=True)
class Bar:
    """A threshold that a score must clear.

    Attributes:
        threshold: the score that must be exceeded.
        ties: an equal score clears it too.
        whole: only a refusal may be given early; who clears it has been seen whole, and has an outcome.
    """

    threshold: float
    ties: bool = False
    whole: bool = False

    def cleared(self, score: float) -> bool:
        """Whether a score clears it."""
        return score >= self.threshold if self.ties else score > self.threshold

    def decided(self, least: float, most: float) -> bool | None:
        """The answer for a score between two others, both included; None where it is open, or must not be given yet."""
        if not self.cleared(most):
            return False
        return True if self.cleared(least) and not self.whole else None

    def of(self, outcome: Outcome) -> Decision:
        """The decision on a model that was scored; asking costs nothing more."""
        score = outcome.score
        return Decision(self.cleared(score), outcome.samples, (score, score), outcome=outcome)

"""What a benchmark notes while a method searches: how its best score has risen, and at what price."""

from __future__ import annotations

from merging.values.outcome import Meter, Outcome


class Trace:
    """An observer that notes how a method's best held-out score rises, and at what price.

    Attributes:
        lines: (forward-equivalents spent, evaluations, best held-out score seen), one for each improvement.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[float, int, float]] = []

    def saw(self, outcome: Outcome, meter: Meter) -> None:
        """Adds a line if the outcome is the best so far."""
        if not self.lines or outcome.score > self.lines[-1][2]:
            self.lines.append((meter.forward_equivalents, meter.evaluations, outcome.score))

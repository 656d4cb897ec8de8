"""The ledger of a worker: whatever it makes is told to the driver, which counts."""

from __future__ import annotations

from collections.abc import Callable

from merging.evaluation.ledger import Ledger, Recalling
from merging.storage.journal import Journal
from merging.values.outcome import Outcome


class Recorder(Ledger):
    """Outcomes by key, each told to whoever listens; nothing is journalled, and no limit ends anything.

    Args:
        should_stop: asked before each evaluation and between batches.

    Attributes:
        heard: told key and outcome of each evaluation that is asked for.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        super().__init__(Journal(None), should_stop=should_stop)
        self.heard: Callable[[str, Outcome], None] = lambda key, outcome: None

    def through(
        self,
        key: str,
        split: str,
        measure: Callable[[], Outcome],
        *,
        made: float | None = None,
        memory: Recalling | None = None,
    ) -> Outcome:
        """The outcome for a key, from memory or measured now; and told."""
        outcome = super().through(key, split, measure, made=made, memory=memory)
        self.heard(key, outcome)
        return outcome

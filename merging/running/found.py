"""What a run has found so far, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from merging.plugins.task import HELD_OUT
from merging.values.outcome import Meter, Outcome
from merging.values.recipe import Merge, Recipe
from merging.values.report import Certificate
from merging.values.states import RunState


@dataclass(frozen=True)
class Made:
    """The merge that one strategy has given, and what it took.

    Attributes:
        label: what tables call the strategy.
        merge: the merged model; of a strategy that was stopped, its best so far.
        meter: cost of the strategy alone, on the held-out data.
        seconds: time of its evaluations and its own work.
        selected: whether held-out data had a say in the merge.
    """

    label: str
    merge: Merge
    meter: Meter
    seconds: float
    selected: bool = True


@dataclass(kw_only=True)
class Found:
    """The results of a run so far: its steps add to it, the report and the notes read it.

    Attributes:
        saved: strategy of the row whose merge is written.
        merges: strategy → what it gave, in the order in which they were run.
        outcomes: (strategy, set) → outcome, of record once it has been made.
        cut: the strategy that was stopped; its row is its own best so far.
        single: name and outcome of the best single model on the held-out data, once the models are ranked.
        decisions: what the strategy that was asked for has accepted and refused.
        kept: its incumbents in order, with what the search saw of them.
        certificate: whether samples that selected nothing accepted the merge, where they were asked.
        doubt: the warning that a model is no better than a guess, or None.
        remarks: sentences about scores of record that contradict the search.
        state: how the run has ended.
        limit: the evaluations that it was allowed, where these are used up.
    """

    saved: str
    merges: dict[str, Made] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    cut: str | None = None
    single: tuple[str, Outcome] | None = None
    decisions: list[dict[str, Any]] = field(default_factory=list)
    kept: list[tuple[Recipe, Outcome]] = field(default_factory=list)
    certificate: Certificate | None = None
    doubt: str | None = None
    remarks: list[str] = field(default_factory=list)
    state: RunState = RunState.FINISHED
    limit: int | None = None

    @property
    def merge(self) -> Merge:
        """The merged model that is saved."""
        return self.merges[self.saved].merge

    @property
    def scored(self) -> list[str]:
        """The strategies whose merge has a held-out score, in order."""
        return [name for name in self.merges if (name, HELD_OUT) in self.outcomes]

    @property
    def interrupted(self) -> bool:
        """Whether somebody has stopped the run; its limit is nobody."""
        return self.state is RunState.INTERRUPTED

    def seen(self, name: str) -> dict[str, tuple[Outcome, ...]]:
        """A row's outcomes, by set."""
        return {split: (outcome,) for (strategy, split), outcome in self.outcomes.items() if strategy == name}

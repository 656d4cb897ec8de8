"""Paired tests of outcomes by what the objective is: right and wrong for accuracies, its own terms otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from merging.evaluation.draws import Draws, Seen
from merging.plugins.objective import Objective, measure_of
from merging.plugins.task import CERTIFY, HELD_OUT, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import Outcome, is_score
from merging.values.statistics import FEW, LEVEL, Comparison, Interval, bootstrapped, paired
from merging.values.verdict import ACCURACY, Role, Verdict


class Comparer:
    """Compares models on the sets of a task; what is drawn again for one comparison serves the others too.

    Attributes:
        measure: what is compared: ``accuracy``, or the objective's name.
    """

    def __init__(self, objective: Objective | WholeModelObjective, task: Task) -> None:
        self.objective, self.task = objective, task
        self.measure = measure_of(objective, task)
        self._draws = Draws(objective, task)

    def accuracies(self, seen: Seen) -> dict[str, float]:
        """Top-1 accuracies that stand beside another objective, where the labels are classes; means over the seeds."""
        if self.measure == ACCURACY:
            return {}
        known = {name: found for name, found in seen.items() if found and all(o.correct is not None for o in found)}
        return {name: float(np.mean([outcome.accuracy for outcome in found])) for name, found in known.items()}

    def columns(self, sets: Sequence[str]) -> dict[str, tuple[Role, tuple[str, ...]]]:
        """Lists the columns that are compared: name → role, and the sets whose mean the column is.

        Args:
            sets: the task's sets that were scored, in order.
        """
        shifts = self.task.shifts
        fixed = {HELD_OUT: Role.HELD_OUT, CERTIFY: Role.CERTIFY} | dict.fromkeys(shifts, Role.SHIFT)
        found: dict[str, tuple[Role, tuple[str, ...]]]
        found = {name: (fixed.get(name, Role.TEST), (name,)) for name in sets}
        if shifts and set(shifts) <= set(sets):
            found[Role.AVERAGE] = (Role.AVERAGE, tuple(shifts))
        return {str(name): what for name, what in found.items()}

    def verdicts(
        self,
        sets: Sequence[str],
        before: Seen,
        after: Seen,
        *,
        reference: str,
        against: str,
        among: Sequence[Seen] = (),
    ) -> tuple[Verdict, ...]:
        """One model against another on every set and on the average of the shifted ones; not corrected yet.

        Args:
            sets: names of the sets that were scored.
            before: the reference's outcomes.
            after: the other model's.
            reference: the name of the reference's row.
            against: the reference in words.
            among: all models of the table, which are then drawn together.
        """
        found = []
        for column, (role, parts) in self.columns(sets).items():
            lacking = any(not before.get(name) for name in parts)
            samples = sum(part[0].samples for part in (after.get(name) for name in parts) if part)
            for measure in dict.fromkeys((self.measure, ACCURACY)):
                extra = measure != self.measure
                scored = any(after.get(name) for name in parts)
                told: Comparison | str = f"{against} was not scored there" if scored else "no model was scored there"
                if not lacking:
                    told = self.compare(parts, before, after, measure=measure, among=among)
                if not extra or not isinstance(told, str):
                    found.append(
                        Verdict.of(
                            told,
                            set=column,
                            role=role,
                            reference=reference,
                            against=against,
                            measure=measure,
                            extra=extra,
                            samples=samples,
                        )
                    )
        return tuple(found)

    def compare(
        self, sets: Sequence[str], before: Seen, after: Seen, *, measure: str = "", among: Sequence[Seen] = ()
    ) -> Comparison | str:
        """Two models on the mean of some sets.

        Args:
            sets: names of the sets.
            before: the reference's outcomes.
            after: the other model's.
            measure: ``accuracy`` where that stands beside the objective; else the objective's own.
            among: all models of the table, which are then drawn together.

        Returns:
            The comparison, or why there is none.
        """
        if any(not before.get(name) for name in sets):
            return "what it would be compared with was not scored there"
        if any(not after.get(name) for name in sets):
            return "it was not scored there"
        old, new = ([seen[name] for name in sets] for seen in (before, after))
        if (measure or self.measure) == ACCURACY:
            if any(outcome.correct is None for part in (*old, *new) for outcome in part):
                return "nothing is right or wrong there"
            return paired([_shares(part) for part in old], [_shares(part) for part in new])
        samples = [part[0].samples for part in new]
        if any(not is_score(outcome.score) for part in (*old, *new) for outcome in part):
            return "a model has no finite score there"
        if any(outcome.terms is None for part in (*old, *new) for outcome in part):
            return "the objective tells no samples apart"
        if min(samples) < FEW:
            return f"{min(samples)} samples say nothing about others"
        draws = []
        for name in sets:
            both = [self._draws.of(name, seen, (before, after, *among)) for seen in (before, after)]
            for drawn in both:
                if isinstance(drawn, str):
                    return drawn
            draws.append(np.subtract(both[1], both[0]))
        steps = [_mean(part) - _mean(earlier) for earlier, part in zip(old, new, strict=True)]
        return bootstrapped(float(np.mean(steps)), np.mean(draws, axis=0), sum(samples))

    def interval(self, sets: Sequence[str], seen: Seen, among: Sequence[Seen] = ()) -> Interval | None:
        """The 95 % interval of a model's own score, by the same draws; None where there are none.

        Args:
            sets: names of the sets whose mean the score is.
            seen: the model's outcomes.
            among: all models of the table.
        """
        draws = []
        for name in sets:
            known = seen.get(name)
            if not known or known[0].samples < FEW or any(o.terms is None or not is_score(o.score) for o in known):
                return None
            drawn = self._draws.of(name, seen, (seen, *among))
            if isinstance(drawn, str):
                return None
            draws.append(drawn)
        low, high = np.quantile(np.mean(draws, axis=0), [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)


def _mean(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([outcome.score for outcome in outcomes]))


def _shares(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """Of each sample, the share of the seeds that have it right."""
    mean: NDArray[np.float64] = np.mean([outcome.hits for outcome in outcomes], axis=0, dtype=np.float64)
    return mean

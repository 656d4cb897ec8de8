"""A plan with the door to its data open: what a run, a benchmark, a rehearsal and a look at a model begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress, Silent
from merging.plugins.strategy import MixStrategy
from merging.running.baselines import BASELINES
from merging.running.plan import Plan
from merging.running.problem import MergeProblem
from merging.storage.journal import Journal
from merging.values.outcome import Outcome

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log, Observer


@dataclass(frozen=True, eq=False)
class Session:
    """What strategies run in.

    Attributes:
        plan: what is to be done, opened and checked.
        evaluator: the door to the data; None where there is no task.
        journal: where evaluations and decisions go.
        progress: where news goes.
    """

    plan: Plan
    evaluator: Evaluator | None
    journal: Log
    progress: Progress

    @classmethod
    def open(
        cls,
        made: Plan,
        journal: Log | None = None,
        progress: Progress | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        cache_memory: int | None = None,
        exact_savings: bool = True,
        observers: Sequence[Observer] = (),
    ) -> Session:
        """Begins with a plan; nothing is evaluated yet.

        Args:
            made: the plan.
            journal: where evaluations and decisions go; default: nowhere.
            progress: where news goes; default: nowhere.
            should_stop: asked between batches; True ends the session at once.
            cache_memory: MiB for activations of earlier passes; None: the default.
            exact_savings: False makes a whole pass of every evaluation.
            observers: told what strategies see.
        """
        journal, progress = journal or Journal(None), progress or Silent()
        if made.task is None or made.live is None or made.numerics is None:
            return cls(made, None, journal, progress)
        from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator  # loads torch
        from merging.evaluation.ledger import Ledger

        ledger = Ledger(
            journal,
            limit=made.max_evaluations,
            should_stop=should_stop,
            exact_savings=exact_savings,
            observers=observers,
        )
        evaluator = Evaluator.over(
            made.live,
            made.task,
            made.objective,
            made.numerics,
            ledger,
            cache_memory=CACHE_MEMORY if cache_memory is None else cache_memory << 20,
            measure_again=made.recalibrate,
            progress=progress,
        )
        return cls(made, evaluator, journal, progress)

    @property
    def strategies(self) -> tuple[MixStrategy, ...]:
        """The baselines that are asked for and find models enough, then the strategy itself."""
        made = self.plan
        certifying = made.task is not None and made.task.certify is not None
        wanted = BASELINES if made.baselines else BASELINES[:1] if certifying else ()
        others = [b for b in wanted if b.name != made.strategy.name and len(made.pool) >= b.min_models]
        return (*others, made.strategy)

    def problem(self, on_ranked: Callable[[str, Outcome], None] = lambda name, outcome: None) -> MergeProblem:
        """What one strategy is given.

        Args:
            on_ranked: told the best single model, name and outcome, whenever the models have been ranked.
        """
        made = self.plan
        return MergeProblem(
            made.pool,
            made.partition,
            self.evaluator,
            made.optimizer,
            self.journal,
            self.progress,
            seed=made.seed,
            budget=made.budget,
            on_ranked=on_ranked,
        )

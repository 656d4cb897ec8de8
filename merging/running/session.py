"""A plan with the door to its data open: what a run, a benchmark, a rehearsal and a look at a model begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress
from merging.plugins.strategy import MixStrategy
from merging.plugins.watcher import Watcher
from merging.running.baselines import BASELINES
from merging.running.plan import Plan
from merging.running.problem import MergeProblem
from merging.running.search import Searching
from merging.storage.journal import Journal
from merging.values.outcome import Outcome

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Log, Observer
    from merging.evaluation.workers.crew import Crew


@dataclass(frozen=True, eq=False)
class Session:
    """A plan with the door to its data open, in which strategies run one after the other.

    Attributes:
        plan: what is to be done, opened and checked.
        evaluator: the door to the data; None where there is no task.
        journal: keeps evaluations and decisions.
        progress: told what happens.
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
        watcher: Watcher = Watcher(),
        observers: Sequence[Observer] = (),
        crew: Crew | None = None,
    ) -> Session:
        """Begins with a plan; nothing is evaluated yet.

        Args:
            made: the plan.
            journal: keeps evaluations and decisions; by default nothing is kept.
            watcher: told what happens, and asked between batches whether to stop.
            observers: told what strategies see.
            crew: makes the passes; None: this process does.

        Raises:
            MergingError: a worker cannot open what the plan has opened.
        """
        journal, progress = journal or Journal(None), watcher.progress
        search, passes = made.settings.search, made.settings.passes
        if made.task is None or made.live is None or made.numerics is None:
            return cls(made, None, journal, progress)
        from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator  # loads torch
        from merging.evaluation.ledger import Ledger

        ledger = Ledger(
            journal,
            limit=search.max_evaluations,
            should_stop=watcher.should_stop,
            exact_savings=passes.exact_savings,
            observers=observers,
        )
        evaluator = Evaluator.over(
            made.live,
            made.task,
            made.objective,
            made.numerics,
            ledger,
            cache_memory=CACHE_MEMORY if passes.cache_memory is None else passes.cache_memory << 20,
            measure_again=bool(made.settings.rules.recalibrate),
            progress=progress,
        )
        if crew is not None:
            from merging.running.crew import by_crew

            evaluator = by_crew(evaluator, made, crew, watcher.progress)
        return cls(made, evaluator, journal, progress)

    @property
    def strategies(self) -> tuple[MixStrategy, ...]:
        """The baselines that are asked for and find models enough, then the strategy itself."""
        made = self.plan
        certifying = made.task is not None and made.task.certify is not None
        wanted = BASELINES if made.settings.rules.baselines else BASELINES[:1] if certifying else ()
        others = [b for b in wanted if b.name != made.strategy.name and len(made.pool) >= b.min_models]
        return (*others, made.strategy)

    def problem(
        self,
        strategy: MixStrategy | None = None,
        on_ranked: Callable[[str, Outcome], None] = lambda name, outcome: None,
    ) -> MergeProblem:
        """Makes the problem that one strategy is given.

        Args:
            strategy: the strategy that is given it; None: everything is found there, whatever the needs.
            on_ranked: told the best single model, name and outcome, whenever the models have been ranked.
        """
        made = self.plan
        problem = MergeProblem(
            made.pool,
            made.partition,
            self.evaluator,
            Searching(made.optimizer, made.settings.search.seed, made.settings.search.budget),
            self.journal,
            self.progress,
            strategy=strategy,
            on_ranked=on_ranked,
        )
        problem.module = made.live.module if made.live is not None else None
        return problem

"""``merging.evaluate_all``: several models on a task's sets, ranked, each with its interval and against the best."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from merging.errors import MergingError
from merging.evaluation.comparing import Comparer
from merging.evaluation.draws import Seen
from merging.evaluation.usual import usual_objective
from merging.looking.opened import OpenedModel, open_all, pool_of
from merging.looking.scoring import OTHERS, Scorer, check_splits, same_classes
from merging.looking.selection import chosen_by_held_out
from merging.looking.wanted import find
from merging.plugins.keywords import by_keyword, given
from merging.plugins.naming import Meant, meant_or_none
from merging.plugins.objective import Objective
from merging.plugins.registry import objectives
from merging.plugins.task import HELD_OUT, Task
from merging.plugins.watcher import Watcher
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.cache import as_told
from merging.running.settings import Settings
from merging.storage.checkpoint import Checkpoint
from merging.storage.in_memory import is_in_memory
from merging.storage.ingredients import check_models
from merging.storage.pool import ModelPool
from merging.tasks.meant import task_of
from merging.values.leaderboard import Trained, differing
from merging.values.outcome import Outcome
from merging.values.report import scored
from merging.values.shown import Cell, Grid, Sheet, Shown
from merging.values.statistics import Interval, mean_interval
from merging.values.sums import in_order
from merging.values.told import KINDS
from merging.values.units import heading, value_in
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected, distinct, mark, word
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from merging.running.applying import Applied
    from merging.running.run import Result
    from merging.running.saved import SavedRun
    from merging.storage.in_memory import InMemory
    from merging.storage.ingredients import Models
    from merging.tasks.meant import TaskLike

    Scorable: TypeAlias = Checkpoint | Path | str | Result | SavedRun | Applied | InMemory
    """A model that can be scored: a checkpoint, a recipe.json, a run's folder or result, a module or state dict."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranked(Shown):
    """One of several models that were scored.

    Attributes:
        name: its name.
        outcomes: set → outcome.
        scores: the same sets, and the average of the shifted ones → score.
        intervals: the same → 95 % interval, where there is one.
        verdicts: the paired tests against the first of the ranking, corrected over the whole table.
        trained: hyper-parameters that are known of it and differ between the models.
        same_as: name of an earlier model with the same weights, whose outcomes these are; empty: there is none.
        chosen: the run that wrote it says that these held-out data had a say in it.
    """

    name: str
    outcomes: Mapping[str, Outcome]
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    trained: Trained = field(default_factory=dict)
    same_as: str = ""
    chosen: bool = False

    def verdict(self, column: str) -> Verdict | None:
        """The test on a set, or on the average of the shifted ones; None where there was none."""
        return next((verdict for verdict in self.verdicts if verdict.set == column and not verdict.extra), None)

    def _sheet(self) -> Sheet:
        return Sheet(
            name="Ranked", facts=(self.name, some([f"{name} {score:.4g}" for name, score in self.scores.items()], 6))
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; scores are fractions where they are accuracies."""
        return {
            "model": self.name,
            "sets": {name: _entry(outcome, self.intervals.get(name)) for name, outcome in self.outcomes.items()},
            "averages": {
                name: {"score": score, "score_interval": _listed(self.intervals.get(name))}
                for name, score in self.scores.items()
                if name not in self.outcomes
            },
            "trained": dict(self.trained),
            "same_weights_as": self.same_as or None,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranking(Shown):
    """Several models on the same samples, best first.

    Attributes:
        task: name of the task.
        objective: name of the objective.
        measure: what the scores are: ``accuracy``, or the objective's name.
        by: the set whose scores rank the models.
        shifts: the shifted sets of the task.
        models: the models, best first; the others are compared with the first.
    """

    task: str
    objective: str
    measure: str
    by: str
    shifts: tuple[str, ...]
    models: tuple[Ranked, ...]

    @property
    def best(self) -> Ranked:
        """The first model, with which the others are compared."""
        return self.models[0]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All paired tests of the table."""
        return tuple(verdict for model in self.models for verdict in model.verdicts)

    def _sheet(self) -> Sheet:
        columns, percent = list(self.best.scores), self.measure == ACCURACY
        rows = []
        for model in self.models:
            row: list[str | Cell] = [model.name]
            for name in columns:
                told = model.verdict(name)
                text = f"{value_in(self.measure, model.scores[name]):{'.2f' if percent else '.4f'}}"
                row.append(Cell(text, mark(told), KINDS.get(word(told), "")) if told is not None else Cell(text))
            rows.append(row)
        best = f"best {self.best.name}: {self.by} {scored(self.best.scores[self.by], self.measure)}"
        notes = f"▲ better or ▼ worse than {self.best.name} (5 % level, corrected), no mark: cannot be told from luck."
        heads = (heading(self.measure), *columns)
        return Sheet(
            name="Ranking",
            facts=(self.task, plural(len(self.models), "model"), best),
            grids=(Grid(heads, rows),),
            notes=(notes,) if len(rows) > 1 else (),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values: what ``merge evaluate --json`` prints of several models."""
        facts = {"task": self.task, "objective": self.objective, "ranked_by": self.by, "reference": self.best.name}
        return {**facts, "models": [model.to_json() for model in self.models]}


@by_keyword(Settings, Watcher, without=OTHERS)
@as_told
def evaluate_all(
    models: ModelPool | Scorable | Sequence[Scorable] | Mapping[str, Scorable],
    task: TaskLike,
    *,
    splits: Sequence[str] = (),
    objective: Meant[Objective] | Meant[WholeModelObjective] | None = None,
    ingredients: ModelPool | Models = (),
    settings: Settings = Settings(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Ranking:
    """Scores several models on the same sets and ranks them; nothing is written.

    All mistakes, in names, files and sets, are raised as one error before any model is scored. Models that share
    weights are scored once.

    Args:
        models: a pool; or checkpoints, files, patterns, runs' folders, recipes, names of models in the task's own pool,
            modules, state dicts and results of merges; a mapping names each of them.
        task: the architecture and the data; a task, or its name.
        splits: which sets; default: the held-out data and every test set.
        objective: what the score is, an object or its name; default: top-1 accuracy.
        ingredients: what holds recipes' ingredients, as a pool takes it; default: the files they were made from.
        settings: device and threads of passes; a score of record is in fp32, whatever a search is told.
        watcher: who is told, and is asked between batches.
        keywords: fields of these values by their own names, instead.

    Returns:
        The models, best held-out score first (or by the first set, where that is left out), each with its intervals;
        the others are tested against the first on all other sets than the held-out data, corrected by Holm.

    Raises:
        MergingError: no such model or set, or a model that the task's architecture cannot take.
        Stopped: ``should_stop`` said so.
    """
    settings, watcher = given("evaluate_all", keywords, settings, watcher, without=OTHERS)
    task = task_of(task, watcher.progress)
    by = meant_or_none(objectives, objective) or usual_objective(task)
    check_models(ingredients)
    named, wrong = _named(models, task)
    try:
        check_splits(task, splits)
    except MergingError as error:
        wrong.append(str(error))
    opened = open_all(named, ingredients, wrong)
    if not named and not wrong:
        wrong.append("no models given; name files, folders, patterns or models of the pool")
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))
    for note in same_classes(named):
        watcher.progress.say(note)
    scorer = Scorer(task, by, settings, watcher)
    for model in opened.values():
        scorer.check(model.pool, wrong)
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))
    ranking = _ranking(*_scored(opened, scorer, check_splits(task, splits)), scorer)
    chosen = {name for name, model in named.items() if chosen_by_held_out(model, task.name)}
    return replace(ranking, models=tuple(replace(model, chosen=model.name in chosen) for model in ranking.models))


def _named(
    models: ModelPool | Scorable | Sequence[Scorable] | Mapping[str, Scorable], task: Task
) -> tuple[dict[str, Scorable], list[str]]:
    """Name → model, and what is wrong with the names."""
    if isinstance(models, ModelPool):
        return {checkpoint.name: checkpoint for checkpoint in models.checkpoints}, []
    if isinstance(models, Mapping) and not is_in_memory(models):
        return dict(cast("Mapping[str, Scorable]", models)), []
    alone = isinstance(models, str | os.PathLike) or is_in_memory(models) or not isinstance(models, Iterable)
    given: list[Any] = [models] if alone else list(cast("Iterable[Any]", models))
    texts = [str(each) for each in given if isinstance(each, str | os.PathLike)]
    found, wrong = find(texts, pool_of(task))
    named: dict[str, Scorable] = {name: Checkpoint(w.path, key=w.key) if w.key else w.path for name, w in found.items()}
    for place, each in enumerate(given):
        if not isinstance(each, str | os.PathLike):
            named[each.name if isinstance(each, Checkpoint) else f"model_{place}"] = each
    return named, wrong


def _scored(
    opened: Mapping[str, OpenedModel], scorer: Scorer, names: Sequence[str]
) -> tuple[dict[str, dict[str, Outcome]], dict[str, str], dict[str, Trained]]:
    """Model → its outcomes, → the earlier one with the same weights, → its hyper-parameters where they differ."""
    progress = scorer.watcher.progress
    progress.stage("scoring", len(opened) * len(names))
    outcomes, first, same = dict[str, dict[str, Outcome]](), dict[str, str](), dict[str, str]()
    for name, model in opened.items():
        merged = model.merge()
        content = model.content(merged)
        if content in first:
            same[name] = first[content]
            outcomes[name] = outcomes[first[content]]
            progress.advance(len(names))
            continue
        first[content] = name
        outcomes[name] = scorer.score(model.pool, merged, names)
    if scorer.known:
        progress.say(f"{scorer.known} of {plural(len(first) * len(names), 'score')} known")
    return outcomes, same, differing({name: model.trained for name, model in opened.items()})


def _ranking(
    outcomes: Mapping[str, Mapping[str, Outcome]],
    same: Mapping[str, str],
    trained: Mapping[str, Trained],
    scorer: Scorer,
) -> Ranking:
    """The models in order, with intervals and tests."""
    task, comparer = scorer.task, Comparer(scorer.objective, scorer.task)
    sets = tuple(next(iter(outcomes.values())))
    by = HELD_OUT if HELD_OUT in sets else sets[0]
    order = sorted(outcomes, key=lambda name: -outcomes[name][by].score)
    seen: dict[str, Seen] = {name: {split: [o] for split, o in outcomes[name].items()} for name in order}
    scorer.watcher.progress.stage("comparing")
    tested = [name for name in sets if name != HELD_OUT] or [by]
    told = [distinct(_verdicts(comparer, tested, seen[order[0]], seen[name], order[0])) for name in order[1:]]
    columns = {name: parts for name, (_, parts) in comparer.columns(sets).items()}
    if len(task.shifts) == 1:  # it is its own average, which stands there once
        columns.pop(str(Role.AVERAGE), None)
    models = []
    for name, verdicts in zip(order, [(), *corrected(told)], strict=True):
        own = outcomes[name]
        scores = {c: in_order(own[part].score for part in parts) / len(parts) for c, parts in columns.items()}
        intervals = {c: interval_of(comparer, parts, seen[name]) for c, parts in columns.items()}
        models.append(
            Ranked(
                name=name,
                outcomes=own,
                scores=scores,
                intervals={column: interval for column, interval in intervals.items() if interval is not None},
                verdicts=verdicts,
                trained=trained[name],
                same_as=same.get(name, ""),
            )
        )
    named = {"task": task.name, "objective": scorer.objective.name, "measure": comparer.measure}
    return Ranking(**named, by=by, shifts=task.shifts, models=tuple(models))


def compared(
    first: Ranked, second: Ranked, objective: Objective | WholeModelObjective, task: Task
) -> tuple[Verdict, ...]:
    """Two models on every set that both were scored on: the second against the first.

    Held-out data are a set like the others, but where they have chosen one of the two.

    Args:
        first: what is compared with.
        second: the other one.
        objective: what they were scored by.
        task: the data.
    """
    seen: list[Seen] = [{name: [outcome] for name, outcome in each.outcomes.items()} for each in (first, second)]
    told = _verdicts(Comparer(objective, task), tuple(second.outcomes), seen[0], seen[1], first.name)
    return corrected([_as_chosen(told) if first.chosen or second.chosen else told])[0]


def _as_chosen(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts where held-out data have chosen a model: they are no test of it."""
    return tuple(
        replace(verdict, role=Role.HELD_OUT, family=Family.of(Role.HELD_OUT)) if verdict.set == HELD_OUT else verdict
        for verdict in verdicts
    )


def _verdicts(comparer: Comparer, sets: Sequence[str], before: Seen, after: Seen, name: str) -> tuple[Verdict, ...]:
    """One model against another; what was held out is a set like the others: it need not have chosen them."""
    return tuple(
        replace(verdict, role=Role.TEST, family=Family.of(Role.TEST, extra=verdict.extra))
        if verdict.role in (Role.HELD_OUT, Role.CERTIFY)
        else verdict
        for verdict in comparer.verdicts(sets, before, after, reference=name, against=name)
    )


def interval_of(comparer: Comparer, sets: Sequence[str], seen: Seen) -> Interval | None:
    """The 95 % interval of a score, or of the mean over several sets; None where there is none.

    Of an accuracy Wilson's, of a mean of some the normal one; of anything else by drawing the samples again.

    Args:
        comparer: draws the samples.
        sets: names of the sets.
        seen: the model's outcomes.
    """
    known = [seen[name][0] for name in sets]
    if comparer.measure != ACCURACY or any(outcome.correct is None for outcome in known):
        return comparer.interval(tuple(sets), seen)
    if len(known) == 1:
        return known[0].interval
    return mean_interval([outcome.accuracy for outcome in known], [outcome.samples for outcome in known])


def _entry(outcome: Outcome, interval: Interval | None) -> dict[str, Any]:
    data: dict[str, Any] = {"score": outcome.score, "samples": outcome.samples, "seconds": outcome.seconds}
    if interval is not None:
        data["score_interval"] = _listed(interval)
    if outcome.correct is not None:
        data |= {"accuracy": outcome.accuracy, "interval": list(outcome.interval)}
    if outcome.nan:
        data["nan"] = outcome.nan
    return data


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)

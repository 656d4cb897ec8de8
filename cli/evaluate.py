"""``merge evaluate``: score a checkpoint, a recipe or a run's result, and compare two of them sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Asking, shared
from merging.cli.asking.request import check_trust, requested, restore, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.cli.asking.tables import TOML
from merging.errors import RequirementError, showable
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher

if TYPE_CHECKING:
    from merging.evaluation.comparing import Comparer
    from merging.values.outcome import Outcome
    from merging.values.verdict import Verdict

    Intervals = dict[str, dict[str, tuple[float, float] | None]]


@click.command("evaluate", cls=Asking)
@click.argument("model", metavar="MODEL")
@click.argument("other", metavar="[OTHER]", required=False)
@shared("task")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this set; repeatable.  [default: all]")
@shared("objective", objective="What is scored.  [default: accuracy]")
@click.option("-o", "--option", "options", multiple=True, metavar="objective.KEY=VALUE", help="Its options.")
@click.option("--models", multiple=True, metavar="PATH", help="Where a recipe's ingredients are; default: as recorded.")
@shared("key", "device", "threads", "cache", "plugin", "fail_unless", "as_json")
@click.option("--trust-code", is_flag=True, help="Let merge.toml or a run's folder load python: entries and plug-ins.")
def command(model: str, other: str | None, **flags: Any) -> None:
    """Score MODEL on a task's sets, and compare OTHER with it on the same samples.

    Either is a checkpoint, a recipe.json, a run's folder, or the name of a model in the pool. Without
    --task and merge.toml, the task is the one of the run whose folder is given.
    """
    from merging.cli.asking.resolve import plugins, task_of
    from merging.cli.showing.screen import Screen, print_json, remark
    from merging.cli.showing.terminal import TerminalProgress

    if flags["fail_unless"] and other is None:
        raise RequirementError("--fail-unless compares OTHER with MODEL: name two models")
    news = Screen(stderr=True)
    request = _request(model, other, flags)
    with contained(), stop_on_signal(news), TerminalProgress(news) as progress:
        progress.stage("loading torch, model and data")
        made = plugins(request)
        task = task_of(request, progress)
        if task is None:
            raise RequirementError("nothing to score on: give --task, or a merge.toml with a [task]")
        from merging.looking.scoring import evaluate, same_classes
        from merging.values.outcome import unscored

        found = {}
        members = {name: _member(name, task, request["pool"], flags["key"] or "") for name in (model, other) if name}
        for note in same_classes(members):
            progress.say(note)
        for name, member in members.items():
            found[name] = evaluate(
                member,
                task,
                splits=flags["splits"],
                objective=made["objective"],
                models=flags["models"],
                settings=settings_of(request, ("device", "threads", "remember", "verify")),
                watcher=Watcher(progress=progress),
            )
        from merging.evaluation.comparing import Comparer

        comparer = Comparer(made["objective"], task)
        seen = {name: {split: [outcome] for split, outcome in own.items()} for name, own in found.items()}
        intervals = {name: {split: comparer.interval((split,), own) for split in own} for name, own in seen.items()}
        verdicts: tuple[Verdict, ...] = ()
        if other is not None:
            progress.stage("comparing")
            verdicts = _verdicts(comparer, seen[model], seen[other], model)
    if flags["as_json"]:
        print_json(_to_json(task.name, request["objective"], found, intervals, verdicts))
    else:
        _show(Screen(), found, intervals, verdicts, request["objective"])
    console = news if flags["as_json"] else Screen()
    for name, outcomes in found.items():
        if said := unscored(outcomes, request["objective"]):
            console.print(remark(f"{name}: {said}"), highlight=False, soft_wrap=True)
    if flags["fail_unless"] and other is not None:
        from merging.cli.showing.answer import fail_unless
        from merging.values.answer import Answer, headline_of, standing_of
        from merging.values.states import Wanted

        compared = Answer(standing=standing_of(verdicts), headline=headline_of(other, verdicts))
        fail_unless(Wanted(flags["fail_unless"]), compared)


def _request(model: str, other: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """The task is the flag's, or merge.toml's, or that of a run's folder."""
    from merging.storage.journal import FILE, read_header

    models = flags["models"]
    own = requested(flags | {"models": models or ("–",)})  # models given: the built-in task is no default here
    own["pool"] = requested(flags | {"models": ()})["models"]
    if own["task"] is not None or (Path(TOML).is_file() and flags["task"] is None):
        return own
    folders = [Path(name) for name in (model, other) if name and (Path(name) / FILE).is_file()]
    if not folders:
        return own
    request = read_header(folders[0] / FILE).get("request")
    kept = restore(request, folders[0])
    check_trust(kept, str(folders[0]), trusted=flags["trust_code"])
    chosen = {key: kept[key] for key in ("task", "folder")}
    chosen |= {"pool": kept["models"], "plugin": [*kept["plugin"], *own["plugin"]]}
    if flags["objective"] is None:
        chosen["objective"] = kept["objective"]
        chosen["options"] = {"objective": kept["options"].get("objective", {})} | own["options"]
    return own | chosen


def _member(name: str, task: Any, pool: list[Any], key: str) -> Any:
    """A path, or the checkpoint of that name in the pool: the [pool]'s, the run's, or the task's own."""
    from merging.errors import unknown
    from merging.plugins.task import own_pool
    from merging.storage.checkpoint import Checkpoint
    from merging.storage.sources import selected, short_names

    if Path(name).expanduser().exists():
        return Checkpoint(Path(name).expanduser(), key=key) if key else name
    files = selected(pool)
    names = short_names([path for path, _ in files]) if files else []
    members = [Checkpoint(path, key=own) if own else path for path, own in files]
    by_name: dict[str, Any] = dict(zip(names, members, strict=True))
    shipped = own_pool(task) if not files else None
    if shipped is not None:
        by_name = {checkpoint.name: checkpoint for checkpoint in shipped.checkpoints}
    if name not in by_name and by_name and not Path(name).suffix:
        raise unknown("model", name, by_name, "or name a checkpoint, a recipe.json or a run's folder")
    return by_name.get(name, name)


def _verdicts(
    comparer: Comparer, before: dict[str, list[Outcome]], after: dict[str, list[Outcome]], model: str
) -> tuple[Verdict, ...]:
    """One model against the other on every set; what was held out is a set like the others: it need not have chosen."""
    from dataclasses import replace

    from merging.values.verdict import Family, Role, corrected

    found = comparer.verdicts(tuple(after), before, after, reference=model, against=model)
    plain = [
        replace(verdict, role=Role.TEST, family=Family.of(Role.TEST, extra=verdict.extra))
        if verdict.role in (Role.HELD_OUT, Role.CERTIFY)
        else verdict
        for verdict in found
    ]
    return corrected([plain])[0]


def _to_json(
    task: str,
    objective: str,
    found: dict[str, dict[str, Outcome]],
    intervals: Intervals,
    verdicts: tuple[Verdict, ...],
) -> dict[str, Any]:
    def entry(outcome: Outcome, interval: tuple[float, float] | None) -> dict[str, Any]:
        data: dict[str, Any] = {"score": outcome.score, "samples": outcome.samples, "seconds": outcome.seconds}
        if interval is not None:
            data["score_interval"] = list(interval)
        if outcome.correct is not None:
            data |= {"accuracy": outcome.accuracy, "interval": list(outcome.interval)}
        if outcome.nan:
            data["nan"] = outcome.nan
        return data

    data: dict[str, Any] = {"task": task, "objective": objective}
    data["models"] = [
        {"model": name, "sets": {split: entry(outcome, intervals[name][split]) for split, outcome in outcomes.items()}}
        for name, outcomes in found.items()
    ]
    if verdicts:
        data["verdicts"] = [verdict.to_json() for verdict in verdicts]
        pairs = {v.set: v.comparison for v in verdicts if v.comparison is not None and not v.extra}
        data["paired"] = {split: pair.to_json() for split, pair in pairs.items()}
    return data


def _show(
    console: Any,
    found: dict[str, dict[str, Outcome]],
    intervals: Intervals,
    verdicts: tuple[Verdict, ...],
    objective: str,
) -> None:
    from merging.cli.showing import screen
    from merging.cli.showing.screen import marked
    from merging.values.report import scored
    from merging.values.verdict import ACCURACY, correction, sentence, sentences

    table = screen.table()
    table.add_column("" if objective == ACCURACY else showable(objective))
    table.add_column("samples", justify="right")
    for name in found:
        table.add_column(showable(name), justify="right", overflow="fold")
    outcomes, shown, drawn = list(found.values()), False, False
    for split in outcomes[0]:
        cells = []
        for name, each in found.items():
            outcome, interval = each[split], intervals[name][split]
            cell = marked(scored(outcome.score, objective))
            if objective == ACCURACY and outcome.correct is not None:
                shown = True
                low, high = outcome.interval
                cell += marked(f" [dim]{100 * low:.1f}–{100 * high:.1f}[/]")
            elif interval is not None:
                drawn = True
                cell += marked(" [dim]{} to {}[/]", *(scored(end, objective) for end in interval))
            cells.append(cell)
        table.add_row(showable(split), str(outcomes[0][split].samples), *cells)
    console.print(table, highlight=False)
    if shown:
        console.print("Behind each accuracy its 95 % interval (Wilson).", style="dim")
    if drawn:
        console.print("Behind each score its 95 % interval (bootstrap over the samples).", style="dim")
    for sets, verdict in sentences(verdicts):
        console.print(marked("[bold]{}:[/] {}", sets, sentence(verdict)), highlight=False)
    if said := correction(verdicts):
        console.print(said, style="dim")

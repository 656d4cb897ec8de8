"""``merge evaluate``: score checkpoints, recipes or runs' results, compare two sample by sample, rank many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Asking, shared
from merging.cli.asking.request import check_trust, requested, restore, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.cli.asking.tables import TOML
from merging.errors import MergingError, RequirementError, unknown
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher

if TYPE_CHECKING:
    from merging.looking.wanted import Members
    from merging.plugins.task import Task

TWO = "--fail-unless compares one model with another: name two models"


@click.command("evaluate", cls=Asking)
@click.argument("wanted", metavar="MODEL…", nargs=-1, required=True)
@shared("task")
@click.option("--base", metavar="FILE", help="The model that adapters among them stand on.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this set; repeatable.  [default: all]")
@shared("objective", objective="What is scored.  [default: accuracy; of texts nll]")
@click.option("-o", "--option", "options", multiple=True, metavar="objective.KEY=VALUE", help="Its options.")
@click.option("--models", multiple=True, metavar="PATH", help="Where a recipe's ingredients are; default: as recorded.")
@shared("key", "device", "threads", "cache", "plugin", "fail_unless", "as_json")
@click.option("--trust-code", is_flag=True, help="Let merge.toml or a run's folder load python: entries and plug-ins.")
def command(wanted: tuple[str, ...], **flags: Any) -> None:
    """Score one MODEL on a task's sets, compare two on the same samples, or rank many.

    Each is a checkpoint, a recipe.json, a run's folder, the name of a model in the pool, or a folder or pattern of
    several. Of more than two the others are compared with the best. Without --task and merge.toml, the task is the one
    of the run whose folder is given.
    """
    from merging.cli.asking.resolve import plugins, task_of
    from merging.cli.showing.screen import Screen, print_json, remark
    from merging.cli.showing.terminal import TerminalProgress

    news = Screen(stderr=True)
    request = _request(wanted, flags)
    pool = _members(request["pool"])
    _check_names(wanted, pool, flags, request["task"])
    with contained(), stop_on_signal(news), TerminalProgress(news) as progress:
        progress.stage("loading torch, models and data")
        made = plugins(request)
        task = task_of(request, progress)
        if task is None:
            raise RequirementError(
                "nothing to score on: give --task, or a merge.toml with a [task] (merge init writes one)"
            )
        from merging.evaluation.usual import usual_objective
        from merging.looking.ranking import compared, evaluate_all
        from merging.storage.adapter_base import standing_on
        from merging.storage.sources import divided
        from merging.values.outcome import unscored

        named = _named(wanted, pool, flags, task)
        if flags["fail_unless"] and len(named) != 2:
            raise RequirementError(TWO)
        with standing_on(divided(request["base"])[0] if request["base"] else None):
            ranking = evaluate_all(
                named,
                task,
                splits=flags["splits"],
                objective=made["objective"],
                ingredients=flags["models"],
                settings=settings_of(request, ("device", "threads", "remember", "verify")),
                watcher=Watcher(progress=progress),
            )
        pair = sorted(ranking.models, key=lambda model: list(named).index(model.name))
        verdicts = (
            compared(pair[0], pair[1], made["objective"] or usual_objective(task), task) if len(pair) == 2 else ()
        )
    console = Screen()
    if len(ranking.models) > 2:
        from merging.cli.showing.ranking import show_ranking

        print_json(ranking.to_json()) if flags["as_json"] else show_ranking(console, ranking)
    else:
        from merging.cli.showing.pair import pair_to_json, show_pair

        shown = ranking, pair, verdicts
        print_json(pair_to_json(*shown)) if flags["as_json"] else show_pair(console, *shown)
    for model in ranking.models:
        if said := unscored(model.outcomes, ranking.objective):
            (news if flags["as_json"] else console).print(
                remark(f"{model.name}: {said}"), highlight=False, soft_wrap=True
            )
    if flags["fail_unless"]:
        from merging.cli.showing.answer import fail_unless
        from merging.values.answer import Answer, headline_of, standing_of
        from merging.values.states import Wanted

        found = Answer(standing=standing_of(verdicts), headline=headline_of(pair[1].name, verdicts))
        fail_unless(Wanted(flags["fail_unless"]), found)


def _request(wanted: Sequence[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The task is the flag's, or merge.toml's, or that of a run's folder."""
    from merging.looking.wanted import find
    from merging.storage.journal import FILE, read_header

    models = flags["models"]
    own = requested(flags | {"models": models or ("–",)})  # models given: the built-in task is no default here
    own["pool"] = requested(flags | {"models": ()})["models"]
    if own["task"] is not None or (Path(TOML).is_file() and flags["task"] is None):
        return own
    named = [each.path for each in find(wanted, None, flags["key"] or "")[0].values()]
    places = [*map(Path, wanted), *(path if path.is_dir() else path.parent for path in named)]
    folders = [place for place in places if (place / FILE).is_file()]
    if not folders:
        return own
    headers = {folder: read_header(folder / FILE) for folder in folders}
    _check_one_task(headers)
    kept = restore(headers[folders[0]].get("request"), folders[0])
    check_trust(kept, str(folders[0]), trusted=flags["trust_code"])
    chosen = {key: kept[key] for key in ("task", "folder")}
    chosen |= {"pool": kept["models"], "plugin": [*kept["plugin"], *own["plugin"]]}
    if flags["objective"] is None:
        chosen["objective"] = kept["objective"]
        chosen["options"] = {"objective": kept["options"].get("objective", {})} | own["options"]
    return own | chosen


def _check_one_task(headers: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuses runs on several tasks where nobody has said which one is meant.

    Raises:
        RequirementError: they were made on other tasks, or other data under one name.
    """
    (first, own), *others = headers.items()
    for folder, other in others:
        one, two = ((str(header.get("task")), header.get("data")) for header in (own, other))
        if one != two:
            on = f"on {one[0]}, {folder} on {two[0]}"
            on += "" if one[0] != two[0] else ", with other data"
            raise RequirementError(f"{first} was made {on}: say with --task what both are scored on")


def _members(pool: Sequence[Any]) -> Members | None:
    """The models of the [pool], or of the run's, by name; None where there is none but the task's own, unknown yet."""
    from merging.storage.sources import selected, short_names

    files = selected(pool)
    return dict(zip(short_names([path for path, _ in files]), files, strict=True)) if files else None


def _check_names(wanted: Sequence[str], pool: Members | None, flags: Mapping[str, Any], task: Any) -> None:
    """Says every mistake in names of models and sets, before torch is loaded and anything is opened.

    Raises:
        MergingError: a name that stands for nothing.
    """
    from merging.looking.wanted import find
    from merging.tasks.catalogue import sets_of

    found, wrong = find(wanted, pool, flags["key"] or "")
    if flags["fail_unless"] and (len(found) > 2 or (len(wanted) == 1 and len(found) == 1)):
        raise RequirementError(TWO)
    known = sets_of(task) if task is not None and flags["splits"] else None
    wrong += [str(unknown("set of the task:", name, known)) for name in flags["splits"] if known and name not in known]
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))


def _named(wanted: Sequence[str], pool: Members | None, flags: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Name → what is to be scored, now that the task's own pool is known.

    Raises:
        MergingError: a name that stands for nothing, or a set that the task does not have.
    """
    from merging.looking.opened import pool_of
    from merging.looking.scoring import check_splits
    from merging.looking.wanted import find
    from merging.storage.checkpoint import Checkpoint

    found, wrong = find(wanted, pool_of(task) if pool is None else pool, flags["key"] or "")
    try:
        check_splits(task, flags["splits"])
    except MergingError as error:
        wrong.append(str(error))
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))
    return {name: Checkpoint(each.path, key=each.key) if each.key else each.path for name, each in found.items()}

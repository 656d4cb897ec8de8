"""``merge run``: everything from a pool to a merged model."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.configurations import Configured
from merging.cli.asking.options import FromFile, shared
from merging.cli.asking.outputs import output_folder
from merging.cli.asking.request import pinned, requested, settings_of
from merging.cli.asking.resumed import resumed
from merging.cli.asking.signals import process_start, stop_on_signal
from merging.errors import RequirementError, showable
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher
from merging.running.given import Destination, Origin
from merging.running.settings import Settings
from merging.values.states import RunState, Wanted
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from merging.running.views import RunViews
    from merging.values.answer import Answer


MOST = 16
"""Models that a plan names."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The ways in which a result is shown: as JSON or as text, with a page, in a browser."""

    as_json: bool
    page: bool
    opens: bool


@click.command(
    "run",
    cls=Configured,
    epilog="Without --models and merge.toml the built-in task 'digits' is used. Options of plug-ins: merge describe.",
)
@shared("models", "base", "key", "task", "strategy", "partitioner", "optimizer", "objective", "options")
@shared("search", "passes", "cache", "output")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in that folder.")
@shared("writing", "vocabulary", "plugin", "rules")
@click.option(
    "--page/--no-page", cls=FromFile, default=None, help="Write a page of the run into its folder, report.html."
)
@shared("open_page", open_page="Write that page, and open it in your browser.")
@shared("watched", "fail_unless")
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, evaluate and write nothing.")
@click.option("--resume", metavar="DIR", help="Go on with an interrupted run; everything else as it was.")
@shared("as_json")
@click.option("--trust-code", is_flag=True, help="Let merge.toml or a resumed run load python: entries and plug-ins.")
def command(**flags: Any) -> None:
    """Merge a pool of models into one better model.

    A configuration of mergekit may stand in the place of models: merge run config.yml makes the merge that it
    describes.

    Ranks the models on held-out data, runs the baselines (best single model, uniform and greedy soup) and the
    strategy, compares them on test and shifted sets, and writes model, recipe, report and model card.
    """
    started = process_start()
    request = _request(flags)
    settings = settings_of(request)
    if flags["dry_run"]:
        _dry_run(request, settings, as_json=flags["as_json"])
        return
    wanted = None if flags["fail_unless"] is None else Wanted(flags["fail_unless"])
    with output_folder(request["output"], request["strategy"]) as folder:
        to = Destination(output=folder, overwrite=flags["overwrite"], resume=bool(flags["resume"]))
        seen = Seen(
            as_json=flags["as_json"], page=bool(request.get("page")) or flags["open_page"], opens=flags["open_page"]
        )
        found = _execute(request, settings, to, started, wanted, seen)
    if wanted is not None:
        from merging.cli.showing.answer import fail_unless

        fail_unless(wanted, found)


def _request(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags over merge.toml, or over the request of the run to resume."""
    if flags["resume"] is None:
        return requested(flags)
    return resumed(flags, click.get_current_context())


def _objects(request: dict[str, Any], progress: Any = None) -> tuple[dict[str, Any], Any, Any]:
    from merging.cli.asking.resolve import plugins, task_and_pool
    from merging.plugins.strategy import required

    made = plugins(request)
    request["partitioner"] = made["partitioner"].name  # kept: another version may have another default
    task, pool = task_and_pool(request, required(made["strategy"]), progress)
    request |= pinned(request)  # what a name of the Hub stands for may move on
    return made, task, pool


def _check_answerable(strategy: Any, task: Any, wanted: Wanted) -> None:
    """Refuses before any work what no test can ever show.

    Raises:
        RequirementError: there are no data, or there is nothing to compare.
    """
    if task is None:
        raise RequirementError(f"nothing can be shown to be {wanted} without data to test on: give `task`")
    if strategy.name == "best":
        raise RequirementError(f"strategy 'best' is what merges are compared with; it cannot be {wanted} than itself")


def _execute(
    request: dict[str, Any],
    settings: Settings,
    to: Destination,
    started: float,
    wanted: Wanted | None,
    seen: Seen,
) -> Answer:
    from merging.cli.asking.resolve import parts_of
    from merging.cli.showing.screen import Screen, marked, print_json, say_built_in
    from merging.cli.showing.table import show_report
    from merging.cli.showing.terminal import TerminalProgress

    news, console, folder = Screen(stderr=True), Screen(), Path(to.output or "")
    place = folder.absolute()  # a plug-in may go to another folder
    say_built_in(request, news)
    if not to.resume:
        from merging.storage.folder import check_free

        check_free(folder, overwrite=to.overwrite)
    with contained(), stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
        progress.stage("loading models and data")
        made, task, pool = _objects(request, progress)
        if wanted is not None:
            _check_answerable(made["strategy"], task, wanted)
        from merging.running.run import merge

        result = merge(
            pool,
            made["strategy"],
            parts=parts_of(made, task),
            settings=settings,
            destination=to,
            watcher=Watcher(progress=progress, should_stop=should_stop),
            origin=Origin(request=request | {"output": None}, command=request["command"], started=started),
        )
    from merging.storage.result import PAGE
    from merging.values.answer import answer

    told = answer(result.report)
    if not seen.as_json:
        how = settings.writing
        show_report(console, result.report, folder, how.kind, built_in=not request["models"], again=how.again)
    try:
        page = _page(replace(result, folder=place), news) if seen.page else None
    finally:  # the run is done, whatever becomes of its page
        if seen.as_json:
            beside = {"page": str(place / PAGE)} if seen.page and (place / PAGE).is_file() else {}
            print_json({"answer": told.to_json()} | _written(place) | beside)
    if page is not None and seen.opens:
        from merging.cli.showing.opening import open_page

        open_page(page, news)
    elif page is not None and not seen.as_json:
        console.print(marked("The page: [bold]{}[/]", folder / page.name), highlight=False, soft_wrap=True)
    if result.report.state is not RunState.FINISHED:
        more = " --max-evaluations MORE" if result.report.state is RunState.LIMIT else ""
        said = "[yellow]{}:[/] the best so far is saved in {}; go on with: merge run --resume {}{}"
        again = shlex.quote(str(folder))
        news.print(marked(said, result.report.status, folder, again, more), highlight=False, soft_wrap=True)
    if result.report.state is RunState.INTERRUPTED:
        raise click.exceptions.Exit(130)
    return told


def _page(result: RunViews, news: Any) -> Path:
    """Draws and writes the page of a run; what it has found is on the disk already."""
    from merging.benchmarking.rendering.forms import write_page
    from merging.cli.showing.terminal import TerminalProgress

    with TerminalProgress(news) as progress:
        return write_page(result, progress)


def _written(folder: Path) -> dict[str, Any]:
    """What ``report.json`` says, with the folder that it lies in and the paths of the files there."""
    import json

    from merging.storage.result import REPORT

    report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    return report | {"folder": str(folder), "paths": [str(folder / name) for name in report["files"]]}


def _planned(made: dict[str, Any], task: Any, pool: Any, ready: Any) -> dict[str, Any]:
    """A plan as JSON: what would be merged how, and what it would be scored on."""
    sets = {} if task is None else {"held-out": task.held_out, **task.tests}
    return {
        "models": list(pool.names),
        "base": None if pool.base is None else pool.base.name,
        "components": [
            {
                "name": component.name,
                "tensors": len(component.tensors),
                "parameters": sum(_size(pool.tensors[name][0]) for name in component.tensors),
                "inert": component.inert,
                "frozen": component.frozen,
                "constant": component.constant,
            }
            for component in ready.partition.components
        ],
        "plugins": {kind: {"name": plugin.name, "options": plugin.options()} for kind, plugin in made.items()},
        "task": None if task is None else task.name,
        "sets": {name: len(split) for name, split in sets.items()},
        "numerics": None if ready.numerics is None else ready.numerics.to_json(),
    }


def _dry_run(request: dict[str, Any], settings: Settings, *, as_json: bool) -> None:
    from merging.cli.asking.resolve import parts_of
    from merging.cli.showing.screen import Screen, marked, notes, print_json, say_built_in
    from merging.looking.estimate import effort
    from merging.running.plan import plan

    say_built_in(request, Screen(stderr=True))
    if _stays_away(request, as_json=as_json):
        return
    made, task, pool = _objects(request)
    ready = plan(pool, made["strategy"], parts=parts_of(made, task), settings=settings)
    made |= {"objective": ready.objective}  # which the data have chosen, where nobody did
    ahead = None if task is None else effort(ready)
    if as_json:
        cost = None if ahead is None else asdict(ahead)
        print_json(_planned(made, task, pool, ready) | {"cost": cost})
        return
    console = Screen()
    console.print(marked("[bold green]Everything fits.[/] Nothing was evaluated or written."), highlight=False)
    size = plural(len(ready.partition), "component")
    console.print(marked("[bold]{}[/]: {}", made["partitioner"].name, size), highlight=False)
    _components(pool, ready).show(console)
    console.print()
    console.print(marked("{}: {}", plural(len(pool), "model"), some(pool.names, MOST)), highlight=False)
    if pool.base is not None:
        console.print(marked("base: {}", pool.base.name), highlight=False)
    for kind, plugin in made.items():
        options = ", ".join(f"{key}={str(value).lower()}" for key, value in plugin.options().items())
        told = plugin.name + (f" ({options})" if options else "")
        console.print(marked("{}: {}", kind, told), highlight=False)
    if task is not None:
        sets = ", ".join(f"{name} {len(split):,}" for name, split in {"held-out": task.held_out, **task.tests}.items())
        console.print(marked("task {}: {} samples", task.name, sets), highlight=False)
    if ready.numerics is not None:
        crew = f"; workers: {settings.passes.workers}" if settings.passes.workers is not None else ""
        console.print(marked("passes: {}", ready.numerics.words + crew), highlight=False)
    if ahead is not None:
        console.print(marked("cost: {} (how long that takes: merge check)", ahead.words), highlight=False)
    notes(console, ready.notes, pool.names)


def _stays_away(request: dict[str, Any], *, as_json: bool) -> bool:
    """Says what models of the Hub are not on this machine, where these are large; nothing is fetched then.

    Raises:
        PoolError: they differ in their tensors, by their headers.
    """
    from merging.cli.showing.screen import Screen, print_json
    from merging.errors import PoolError
    from merging.looking.absent import absent, disagreements, told

    away = absent(request["models"], request["base"])
    if not away:
        return False
    wrong = disagreements(away, request["models"])
    if wrong:
        raise PoolError(wrong[0])
    if as_json:
        print_json({"fetch": [{"model": str(model.pinned), "bytes": model.size} for model in away]})
        return True
    Screen().print(f"Nothing was fetched, evaluated or written. {showable(told(away))}.", highlight=False)
    return True


def _components(pool: Any, ready: Any) -> Any:
    """The partition as a table."""
    from rich.text import Text

    from merging.cli.showing.grid import Column, Grid

    parts = ready.partition.components
    states = [
        "inert" if part.inert else "frozen" if part.frozen else "equal in all models" if part.constant else "active"
        for part in parts
    ]
    sizes = [sum(_size(pool.tensors[name][0]) for name in part.tensors) for part in parts]
    columns = [
        Column(head="tensors", cells=[Text(str(len(part.tensors))) for part in parts]),
        Column(head="parameters", cells=[Text(f"{size:,}") for size in sizes]),
        Column(head="", cells=[Text(state) for state in states], right=False),
    ]
    return Grid(names=[Text(showable(part.name)) for part in parts], columns=columns, corner="component", turns=False)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size

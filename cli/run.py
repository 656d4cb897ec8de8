"""``merge run``: everything from a pool to a merged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from merging.cli.asking.options import shared
from merging.cli.asking.request import SETTINGS, output_folder, requested
from merging.cli.asking.resumed import resumed
from merging.cli.asking.signals import process_start, stop_on_signal
from merging.errors import showable
from merging.plugins.user_code import contained
from merging.values.states import RunState


@click.command(
    "run",
    epilog="Without --models and merge.toml the built-in task 'digits' is used. Options of plug-ins: merge describe.",
)
@shared("models", "base", "key", "task")
@click.option("--strategy", metavar="NAME", help="How to merge.  [default: manifoldmix]")
@shared("partitioner", "optimizer", "objective", "options", "budget", "max_evaluations")
@click.option("--seed", type=int, metavar="N", help="Of everything random.  [default: 0]")
@shared("freeze", "device", "precision", "threads", "tune", "compile")
@click.option("--output", metavar="DIR", help="Folder for the result.  [default: runs/<time>-<strategy>]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in that folder.")
@click.option("--format", type=click.Choice(["safetensors", "pt"]), help="Of the model file.  [default: safetensors]")
@click.option("--dtype", metavar="NAME", help="Of the merged tensors, such as bfloat16.  [default: the inputs']")
@click.option("--accumulate", metavar="NAME", help="Precision of sums: float64 or float32.  [default: float64]")
@click.option("--max-shard-size", metavar="SIZE", help="Write several files of at most SIZE, such as 5GB.")
@shared("plugin", "baselines", "tests", "certify_split", "recalibrate", "as_stored")
@click.option(
    "--cache-memory", type=int, metavar="MIB", help="For activations of earlier passes; 0: none.  [default: 1024]"
)
@click.option(
    "--no-exact-savings",
    "exact_savings",
    flag_value=False,
    type=bool,
    default=None,
    help="Make every evaluation a whole pass, to measure what is saved.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, evaluate and write nothing.")
@click.option("--resume", metavar="DIR", help="Go on with an interrupted run; everything else as it was.")
@click.option("--trust-code", is_flag=True, help="Let merge.toml or a resumed run load python: entries and plug-ins.")
def command(**flags: Any) -> None:
    """Merge a pool of models into one better model.

    Ranks the models on held-out data, runs the baselines (best single model, uniform and greedy soup) and the
    strategy, compares them on test and shifted sets, and writes model, recipe, report and model card.
    """
    started = process_start()
    request = _request(flags)
    if flags["dry_run"]:
        _dry_run(request)
        return
    with output_folder(request["output"], request["strategy"]) as folder:
        _execute(request, flags, started, folder)


def _request(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags over merge.toml, or over the request of the run to resume."""
    if flags["resume"] is None:
        return requested(flags)
    return resumed(flags, click.get_current_context())


def _objects(request: dict[str, Any], progress: Any = None) -> tuple[dict[str, Any], Any, Any]:
    from merging.cli.asking.resolve import plugins, task_and_pool

    made = plugins(request)
    task, pool = task_and_pool(request, made["strategy"].requires(), progress)
    return made, task, pool


def _execute(request: dict[str, Any], flags: dict[str, Any], started: float, folder: Path) -> None:
    from merging.cli.showing.screen import Screen, marked
    from merging.cli.showing.table import show_report
    from merging.cli.showing.terminal import TerminalProgress

    news, console = Screen(stderr=True), Screen()
    if request["task"] == "digits" and not request["models"]:
        news.print(marked("No --models and no merge.toml: using the built-in task [bold]digits[/]."), highlight=False)
    if not flags["resume"]:
        from merging.storage.folder import check_free

        check_free(folder, overwrite=flags["overwrite"])
    with contained(), stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
        progress.stage("loading models and data")
        made, task, pool = _objects(request, progress)
        from merging.running.run import merge

        result = merge(
            pool,
            made["strategy"],
            partitioner=made["partitioner"],
            objective=made["objective"],
            optimizer=made["optimizer"],
            task=task,
            **{key: request[key] for key in SETTINGS},
            cache_memory=request.get("cache_memory"),
            exact_savings=request.get("exact_savings") is not False,
            output=folder,
            overwrite=flags["overwrite"],
            resume=bool(flags["resume"]),
            format=request["format"],
            dtype=request.get("dtype"),
            accumulate=request.get("accumulate") or "float64",
            max_shard_size=request.get("max_shard_size"),
            progress=progress,
            should_stop=should_stop,
            request=request | {"output": None},
            command=request["command"],
            started=started,
        )
    show_report(console, result.report, folder, request["format"], built_in=not request["models"])
    if result.report.state is not RunState.FINISHED:
        more = " --max-evaluations MORE" if result.report.state is RunState.LIMIT else ""
        said = "[yellow]{}:[/] the best so far is saved in {}; go on with: merge run --resume {}{}"
        news.print(marked(said, result.report.status, folder, folder, more), highlight=False, soft_wrap=True)
    if result.report.state is RunState.INTERRUPTED:
        raise click.exceptions.Exit(130)


def _dry_run(request: dict[str, Any]) -> None:
    from rich.table import Table

    from merging.cli.showing.screen import Screen
    from merging.running.plan import plan

    made, task, pool = _objects(request)
    ready = plan(
        pool,
        made["strategy"],
        partitioner=made["partitioner"],
        objective=made["objective"],
        optimizer=made["optimizer"],
        task=task,
        **{key: request[key] for key in SETTINGS},
    )
    console = Screen()
    table = Table(title=f"{made['partitioner'].name}: {len(ready.partition)} components")
    for column in ("component", "tensors", "parameters", ""):
        table.add_column(column, justify="right" if column in ("tensors", "parameters") else "left")
    for component in ready.partition.components:
        size = sum(_size(pool.tensors[name][0]) for name in component.tensors)
        state = "inert" if component.inert else "frozen" if component.frozen else "equal" if component.constant else ""
        table.add_row(showable(component.name), str(len(component.tensors)), f"{size:,}", state or "active")
    console.print(table)
    console.print(showable(f"models: {', '.join(pool.names)}" + (f"; base {pool.base.name}" if pool.base else "")))
    for kind, plugin in made.items():
        settings = ", ".join(f"{key}={str(value).lower()}" for key, value in plugin.options().items())
        console.print(showable(f"{kind}: {plugin.name}" + (f" ({settings})" if settings else "")), highlight=False)
    if task is not None:
        sets = ", ".join(f"{name} {len(split)}" for name, split in {"held-out": task.held_out, **task.tests}.items())
        console.print(showable(f"task {task.name}: {sets}"), highlight=False)
    if ready.numerics is not None:
        console.print(f"numerics: {ready.numerics.to_json()}", highlight=False)
    console.print("Everything fits. Nothing was evaluated or written.")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size

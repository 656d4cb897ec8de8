"""``merge benchmark``: many methods over one pool, side by side."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from merging.cli.asking.options import shared
from merging.cli.asking.request import output_folder, requested
from merging.cli.asking.signals import stop_on_signal
from merging.errors import OptionError, RequirementError, unknown
from merging.plugins.user_code import contained
from merging.values.states import RunState

METHODS = "best,uniform,greedy,manifoldmix,learned"
SETTINGS = (
    "budget",
    "max_evaluations",
    "freeze",
    "device",
    "precision",
    "tune",
    "compile",
    "recalibrate",
    "as_stored",
    "threads",
)
"""What a request hands to :func:`merging.benchmarking.runner.benchmark` as it is."""
WRITTEN = r"(methods|pictures)(/.*)?|benchmark\..*|evaluations\.jsonl"
"""What a benchmark's folder holds."""
SHARED = ("optimizer", "objective")
"""Kinds whose options are written with the kind, because all methods share them."""


@click.command(
    "benchmark",
    epilog="Without --models and merge.toml the built-in task 'digits' is used. Options of plug-ins: merge describe.",
)
@click.option(
    "--strategies",
    multiple=True,
    metavar="A,B,…",
    help=f"Methods: strategies, or NAME=STRATEGY to have one with several options.  [default: {METHODS}]",
)
@click.option(
    "--partitioner",
    "partitioners",
    multiple=True,
    metavar="A,B,…",
    help="Groups of tensors: each method under each.  [default: whole; clip-c8 for the built-in task]",
)
@click.option("--seeds", type=int, default=1, show_default=True, metavar="N", help="So many, from --seed on.")
@click.option("--seed", type=int, metavar="N", help="The first one.  [default: 0]")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="Of a method, a partitioner, or the optimizer or objective (optimizer.KEY=…); repeatable.",
)
@shared("models", "base", "key", "task")
@click.option("--optimizer", metavar="NAME", help="Backend of searches.  [default: each strategy's own]")
@shared("objective")
@click.option("--budget", type=int, metavar="N", help="Evaluations per search.  [default: each strategy's own]")
@click.option("--max-evaluations", type=int, metavar="N", help="End each method after so many; its best so far counts.")
@shared("freeze", "device", "precision", "threads", "tune", "compile", "recalibrate", "as_stored")
@click.option("--no-singles", is_flag=True, help="Do not score the single models on the test sets (no dots in plots).")
@click.option(
    "--against",
    multiple=True,
    metavar="NAME",
    help="Test the others against this method, too; repeatable.  [default: best, greedy]",
)
@shared("plugin")
@click.option("--output", metavar="DIR", help="Folder for the results.  [default: runs/<time>-benchmark]")
@click.option("--overwrite", is_flag=True, help="Begin anew in that folder.")
@shared("as_json", "trust_code")
def command(**flags: Any) -> None:
    """Compare methods over one pool: Table 1 of the paper, for your data.

    A row a method, a column a test set, with 95 % intervals and paired tests against the best single model and the
    greedy soup. What one method has had scored is not scored again for the next. Interrupted, the same command with
    the same --output goes on; with more strategies, partitioners or seeds it adds them.
    """
    from merging.cli.showing.screen import Screen, marked

    request, methods, partitions = _asked(flags)
    news, console = Screen(stderr=True), Screen()
    if request["task"] == "digits" and not request["models"]:
        news.print(marked("No --models and no merge.toml: using the built-in task [bold]digits[/]."), highlight=False)
    with output_folder(request["output"], "benchmark") as folder:
        _into(folder, request, flags, methods, partitions, news, console)


def _into(
    folder: Path,
    request: dict[str, Any],
    flags: Mapping[str, Any],
    methods: dict[str, tuple[str, dict[str, Any]]],
    partitions: dict[str, dict[str, Any]],
    news: Any,
    console: Any,
) -> None:
    from merging.cli.showing.screen import marked, say_json

    place = folder.absolute()  # a plug-in may go to another folder
    from merging.benchmarking.folder import Folder

    Folder(place).check(overwrite=flags["overwrite"])
    found = _run(request, flags, methods, partitions, place, news)
    if flags["as_json"]:
        say_json(found.dumps())
    else:
        from merging.cli.showing.benchmark_view import show_benchmark

        show_benchmark(console, found)
        where = marked("\nTables, page and pictures: [bold]{}[/] (benchmark.html, .md, .csv, .tex, .json)", folder)
        console.print(where, highlight=False, soft_wrap=True)
    if found.state is not RunState.FINISHED:
        again = [argument for argument in sys.argv[1:] if argument != "--overwrite"]
        again += [] if flags["output"] else ["--output", str(folder)]
        said = marked("[yellow]interrupted:[/] what is finished is kept; go on with: merge {}", shlex.join(again))
        news.print(said, highlight=False, soft_wrap=True)
        raise click.exceptions.Exit(130)


def _run(
    request: dict[str, Any],
    flags: Mapping[str, Any],
    methods: dict[str, tuple[str, dict[str, Any]]],
    partitions: dict[str, dict[str, Any]],
    folder: Path,
    news: Any,
) -> Any:
    from merging.cli.showing.terminal import TerminalProgress

    with (
        contained(),
        stop_on_signal(news, "stopping: what is finished is kept") as should_stop,
        TerminalProgress(news) as progress,
    ):
        progress.stage("loading models and data")
        made = _plugins(request, methods, partitions)
        from merging.benchmarking.rendering.forms import render
        from merging.benchmarking.runner import benchmark
        from merging.cli.asking.outputs import check_folder
        from merging.cli.asking.resolve import task_and_pool

        task, pool = task_and_pool(request | {"strategy": next(iter(methods))}, frozenset({"objective"}), progress)
        if task is None:
            raise RequirementError("a benchmark scores its methods: give --task, or a merge.toml with a [task]")
        models = [*pool.checkpoints, *([pool.base] if pool.base else [])]
        check_folder(folder, [file for model in models for file in (model.path, *model.files)], WRITTEN)
        first = request["seed"]
        found = benchmark(
            pool,
            made["strategies"],
            task=task,
            partitioners=made["partitioners"],
            seeds=range(first, first + flags["seeds"]),
            objective=made["objective"],
            optimizer=made["optimizer"],
            **{key: request[key] for key in SETTINGS},
            cache_memory=request.get("cache_memory"),
            exact_savings=request.get("exact_savings") is not False,
            singles=not flags["no_singles"],
            against=_listed(flags["against"]),
            output=folder,
            overwrite=flags["overwrite"],
            progress=progress,
            should_stop=should_stop,
            command=request["command"],
        )
        render(found, folder, progress)
    return found


def _asked(
    flags: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, tuple[str, dict[str, Any]]], dict[str, dict[str, Any]]]:
    """The request, methods (name → strategy and options) and partitioners (name → options), as far as text tells."""
    if flags["seeds"] < 1:
        raise OptionError(f"--seeds {flags['seeds']}: at least 1 is needed")
    request = requested({**flags, "options": (), "strategy": None, "partitioner": None})
    own = request["options"]  # of merge.toml
    methods: dict[str, tuple[str, dict[str, Any]]] = {}
    listed = _listed(flags["strategies"])
    if flags["strategies"] and not listed:
        raise OptionError(f"--strategies is empty; name some, such as {METHODS}, or leave it out")
    for text in listed or METHODS.split(","):
        name, equals, strategy = text.partition("=")
        strategy = strategy if equals else name
        if not re.fullmatch(r"[\w+-]+", name) or name in SHARED or (equals and not strategy):
            raise OptionError(
                f"--strategies {text}: write STRATEGY, or NAME=STRATEGY with a name of letters and digits"
            )
        if name in methods:
            raise OptionError(f"--strategies names '{name}' twice; give one of them a name: other-name={strategy}")
        methods[name] = (strategy, dict(own.get("strategy", {})) if strategy == request["strategy"] else {})
    partitions = {
        name: dict(own.get("partitioner", {})) if name == request["partitioner"] else {}
        for name in _listed(flags["partitioners"]) or [request["partitioner"]]
    }
    shared = {kind: dict(own.get(kind, {})) for kind in SHARED}
    places: dict[str, dict[str, Any]] = {
        **shared,
        **partitions,
        **{name: given for name, (_, given) in methods.items()},
    }
    seen: set[tuple[str, str]] = set()
    for text in flags["options"]:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not equals or not dot:
            raise OptionError(f"-o {text}: write it as name.option=value, such as -o manifoldmix.tau=0.99")
        if name not in places:
            raise OptionError(str(unknown("method, partitioner or kind in -o", name, places)))
        given = places[name]
        if (name, option) in seen:  # given twice, it becomes a list
            before = given[option]
            given[option] = [*(before if isinstance(before, list) else [before]), value]
        else:  # an inner strategy from the command line takes the file's, with its options, away
            for old in [old for old in given if old.partition(".")[0] == option]:
                del given[old]
            given[option] = value
        seen.add((name, option))
    request["options"] = shared
    return request, methods, partitions


def _listed(given: Sequence[str]) -> list[str]:
    """Comma-separated values, the flag repeatable."""
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def _plugins(
    request: Mapping[str, Any],
    methods: Mapping[str, tuple[str, dict[str, Any]]],
    partitions: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Every plug-in, made before any work: a wrong name or option ends the command here.

    Raises:
        MergingError: an unknown name or option, or a value out of range.
    """
    from merging.cli.showing.screen import warn
    from merging.plugins.discovery import load_all
    from merging.plugins.options import Plugin, build
    from merging.plugins.registry import objectives, optimizers, partitioners, strategies

    warn(load_all(request["plugin"]))

    def inner(name: str, options: Mapping[str, Any]) -> Plugin:
        return build(strategies[name], options, inner)

    given = request["options"]
    if given["optimizer"] and not request["optimizer"]:
        raise OptionError("there are options of an optimizer (optimizer.…), but none is named: give --optimizer")
    return {
        "strategies": {name: build(strategies[kind], options, inner) for name, (kind, options) in methods.items()},
        "partitioners": {name: build(partitioners[name], options) for name, options in partitions.items()},
        "objective": build(objectives[request["objective"]], given["objective"]),
        "optimizer": build(optimizers[request["optimizer"]], given["optimizer"]) if request["optimizer"] else None,
    }

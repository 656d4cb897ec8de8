"""``merge benchmark``: many methods over one pool, side by side."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from merging.benchmarking.design import NOT_TAKEN, Design
from merging.cli.asking.options import Asking, shared
from merging.cli.asking.outputs import output_folder
from merging.cli.asking.plugin_options import over, parse_options
from merging.cli.asking.request import command_line, requested, settings_of, usual_partitioner
from merging.cli.asking.signals import stop_on_signal
from merging.errors import OptionError, RequirementError
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher
from merging.running.given import Destination
from merging.values.states import RunState, Wanted

BEST = "best"
METHODS = "best,uniform,greedy,manifoldmix,learned"
WRITTEN = r"(methods|pictures)(/.*)?|benchmark\..*|evaluations\.jsonl"
"""Regular expression of the paths that a benchmark writes in its folder."""
SHARED = ("optimizer", "objective")
"""Kinds whose options are written with the kind, because all methods share them."""


@click.command(
    "benchmark",
    cls=Asking,
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
    help="Groups of tensors: each method under each.  [default: each one's; whole, clip-c8 for the built-in task]",
)
@click.option("--seeds", type=int, default=1, show_default=True, metavar="N", help="So many, from --seed on.")
@shared("seed", seed="The first one.  [default: 0]")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="Of a method, a partitioner, or the optimizer or objective (optimizer.KEY=…); repeatable.",
)
@shared("models", "base", "key", "task")
@shared("optimizer", "objective", optimizer="Backend of searches.  [default: each strategy's own]")
@shared(
    "search",
    "passes",
    "cache",
    "rules",
    without=NOT_TAKEN,
    budget="Evaluations per search.  [default: each strategy's own]",
    max_evaluations="End each method after so many; its best so far counts.",
)
@click.option("--no-singles", is_flag=True, help="Do not score the single models on the test sets (no dots in plots).")
@click.option(
    "--against",
    multiple=True,
    metavar="NAME",
    help="Test the others against this method, too; repeatable.  [default: best, greedy]",
)
@shared("plugin")
@shared("output", output="Folder for the results.  [default: runs/<time>-benchmark]")
@click.option("--overwrite", is_flag=True, help="Begin anew in that folder.")
@shared("open_page", "watched", "fail_unless", "as_json", "trust_code")
def command(**flags: Any) -> None:
    """Compare methods over one pool: Table 1 of the paper, for your data.

    A row a method, a column a test set, with 95 % intervals and paired tests against the best single model and the
    greedy soup. What one method has had scored is not scored again for the next. Interrupted, the same command with
    the same --output goes on; with more strategies, partitioners or seeds it adds them.
    """
    from merging.cli.showing.screen import Screen, say_built_in

    request, methods, partitions = _asked(flags)
    if not flags["no_singles"] or flags["fail_unless"]:
        methods = with_best(methods)
    news, console = Screen(stderr=True), Screen()
    say_built_in(request, news)
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
    from merging.benchmarking.rendering.answer import answer

    if flags["as_json"]:
        say_json(
            json.dumps({"answer": answer(found).to_json()} | json.loads(found.dumps()), ensure_ascii=False, indent=1)
        )
    else:
        from merging.cli.showing.benchmark_view import show_benchmark

        show_benchmark(console, found, "benchmark.md")
        where = marked("\nTables, page and pictures: [bold]{}[/] (benchmark.html, .md, .csv, .tex, .json)", folder)
        console.print(where, highlight=False, soft_wrap=True)
    if flags["open_page"]:
        from merging.cli.showing.opening import open_page

        open_page(place / "benchmark.html", news)
    if found.state is not RunState.FINISHED:
        again = [argument for argument in sys.argv[1:] if argument != "--overwrite"]
        again += [] if flags["output"] else ["--output", str(folder)]
        said = marked("[yellow]interrupted:[/] what is finished is kept; go on with: {}", command_line(again))
        news.print(said, highlight=False, soft_wrap=True)
        raise click.exceptions.Exit(130)
    if not any(row.finished for row in found.rows):
        news.print(marked("[red]error:[/] no method has a result; the rows say why"), highlight=False)
        raise click.exceptions.Exit(1)
    if flags["fail_unless"]:
        from merging.cli.showing.answer import fail_unless

        fail_unless(Wanted(flags["fail_unless"]), answer(found))


def _run(
    request: dict[str, Any],
    flags: Mapping[str, Any],
    methods: dict[str, tuple[str, dict[str, Any]]],
    partitions: dict[str, dict[str, Any]],
    folder: Path,
    news: Any,
) -> Any:
    from merging.cli.showing.terminal import TerminalProgress

    settings = settings_of({name: value for name, value in request.items() if name not in NOT_TAKEN})
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
            raise RequirementError(
                "a benchmark scores its methods: give --task, or a merge.toml with a [task] (merge init writes one)"
            )
        check_folder(folder, [file for model in pool.with_base for file in (model.path, *model.files)], WRITTEN)
        first = request["seed"]
        design = Design(
            task=task,
            partitioners=_partitions(request, made["partitioners"], flags),
            seeds=range(first, first + flags["seeds"]),
            objective=made["objective"],
            optimizer=made["optimizer"],
            singles=not flags["no_singles"],
            against=_listed(flags["against"]),
        )
        found = benchmark(
            pool,
            made["strategies"],
            design=design,
            settings=settings,
            destination=Destination(output=folder, overwrite=flags["overwrite"]),
            watcher=Watcher(progress=progress, should_stop=should_stop),
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
    request = requested({**flags, "options": ()})
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
    usual = request["partitioner"] or usual_partitioner(request)
    partitions = {
        name: dict(own.get("partitioner", {})) if name == usual else {}
        for name in _listed(flags["partitioners"]) or [usual]
    }
    shared = {kind: dict(own.get(kind, {})) for kind in SHARED}
    names = [*methods, *partitions, *SHARED]
    form, what = "name.option=value, such as -o manifoldmix.tau=0.99", "method, partitioner or kind in -o"
    typed = parse_options(flags["options"], names, form=form, what=what)
    methods = {name: (strategy, over(given, typed.pop(name, {}))) for name, (strategy, given) in methods.items()}
    partitions = {name: over(given, typed.pop(name, {})) for name, given in partitions.items()}
    request["options"] = {kind: over(given, typed.get(kind, {})) for kind, given in shared.items()}
    return request, methods, partitions


def _partitions(request: Mapping[str, Any], made: Mapping[str, Any], flags: Mapping[str, Any]) -> Any:
    """The partitioners that were named; where none was, the strategies' own, and one for those that have none."""
    from merging.benchmarking.design import Own

    if _listed(flags["partitioners"]) or request["partitioner"]:
        return made
    return Own(next(iter(made.values())))


def with_best(methods: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The methods, and the best single model before them where nobody asks for it: every other one is compared with it.

    The single models are scored anyway, so that it costs nothing.
    """
    named = BEST in methods or any(strategy == BEST for strategy, _ in methods.values())
    return methods if named else {BEST: (BEST, {})} | methods


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
    from merging.cli.asking.resolve import inner
    from merging.cli.showing.screen import warn
    from merging.plugins.discovery import load_all
    from merging.plugins.options import build
    from merging.plugins.registry import optimizers, partitioners, strategies

    warn(load_all(request["plugin"]))

    given = request["options"]
    if given["optimizer"] and not request["optimizer"]:
        raise OptionError("there are options of an optimizer (optimizer.…), but none is named: give --optimizer")
    return {
        "strategies": {name: build(strategies[kind], options, inner) for name, (kind, options) in methods.items()},
        "partitioners": {name: build(partitioners[name], options) for name, options in partitions.items()},
        "objective": _objective(request["objective"], given["objective"]),
        "optimizer": build(optimizers[request["optimizer"]], given["optimizer"]) if request["optimizer"] else None,
    }


def _objective(name: str | None, options: Mapping[str, Any]) -> Any:
    """The objective that is named; None: the data choose it."""
    from merging.plugins.naming import as_written
    from merging.plugins.options import build
    from merging.plugins.registry import objectives

    if name is None and not options:
        return None
    kind, said = as_written(objectives, name or "accuracy")
    return build(objectives[kind], said | dict(options))

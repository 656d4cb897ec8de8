"""``merge inspect --interpolate A B``: the line between two models, its curve and barrier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from merging.cli.asking.request import requested, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.errors import InterruptedRunError, OptionError, RequirementError, Stopped, showable, unknown
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher

if TYPE_CHECKING:
    from rich.console import Console

    from merging.looking.interpolation import Interpolation
    from merging.storage.checkpoint import Checkpoint
    from merging.storage.pool import ModelPool

UNUSED = ("model", "classes", "freeze", "tensors", "options", "partitioner")
"""Options of ``merge inspect`` that mean nothing to a line."""


def show_line(flags: dict[str, Any]) -> None:
    """Scores the line and prints it; writes the picture where one is asked for."""
    from merging.cli.showing.screen import Screen, marked, print_json

    context = click.get_current_context()
    for name in UNUSED:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = {"options": "-o"}.get(name, f"--{name}")
            raise RequirementError(f"{flag} does nothing for --interpolate: leave it out")
    picture = Path(flags["plot"]) if flags["plot"] is not None else None
    if picture is not None and picture.suffix not in (".png", ".svg"):
        raise OptionError(f"--plot {picture}: the name ends with .png or .svg")
    if picture is not None:
        from merging.storage.folder import check_parent

        check_parent(picture, f"--plot {picture}")
    console, news = Screen(), Screen(stderr=True)
    found = _interpolated(flags, news)
    if picture is not None:
        from functools import partial

        from merging.drawing import WIDE, draw
        from merging.looking.pictures import curve
        from merging.storage.atomic import write

        kind: Literal["png", "svg"] = "svg" if picture.suffix == ".svg" else "png"
        write(picture, *draw(partial(curve, found), picture.stem, WIDE, kind))
    if flags["as_json"]:
        print_json(found.to_json())
    else:
        _show(console, found)
        if picture is not None:
            console.print(marked("\nThe curve: [bold]{}[/]", picture), highlight=False, soft_wrap=True)


def _interpolated(flags: dict[str, Any], news: Console) -> Interpolation:
    from merging.cli.asking.resolve import plugins, task_and_pool
    from merging.cli.showing.screen import say_built_in
    from merging.cli.showing.terminal import TerminalProgress

    names = flags["interpolate"]
    if not flags["models"] and all(Path(name).exists() for name in names):
        flags = flags | {"models": names}
    request = requested(flags)
    say_built_in(request, news)
    with contained(), stop_on_signal(news, "stopping") as should_stop, TerminalProgress(news) as progress:
        if not flags["as_json"] or news.is_terminal:
            progress.stage("loading models and data")
        made = plugins(request)
        from merging.looking.interpolation import interpolate
        from merging.storage.pool import ModelPool

        task, pool = task_and_pool(request, frozenset(), progress)
        if task is None:
            raise RequirementError(
                "a line is scored: give --task, or a merge.toml with a [task] (merge init writes one)"
            )
        ends = [_end(pool, name) for name in names]
        settings = settings_of(request, ("device", "threads", "remember", "verify"))
        with settings.cache.applied():
            same = ends[0].hash == ends[1].hash
        if same:
            raise RequirementError(f"{names[0]} and {names[1]} are the same model: there is no line between them")
        try:
            return interpolate(
                ModelPool(ends),
                task,
                steps=10 if flags["steps"] is None else flags["steps"],
                tests=flags["tests"],
                objective=made["objective"],
                settings=settings,
                watcher=Watcher(progress=progress, should_stop=should_stop),
            )
        except Stopped:
            raise InterruptedRunError("interrupted; nothing was written") from None


def _end(pool: ModelPool, name: str) -> Checkpoint:
    """A model of the pool by its name or file, or any other file.

    Raises:
        UnknownNameError: there is none.
    """
    from merging.storage.checkpoint import Checkpoint

    for checkpoint in pool.with_base:
        if name == checkpoint.name or Path(name).resolve() == Path(checkpoint.path).resolve():
            return checkpoint
    if Path(name).exists():
        return Checkpoint(name)
    raise unknown("model", name, pool.names)


def _show(console: Console, found: Interpolation) -> None:
    from rich.text import Text

    from merging.cli.showing.grid import Column, Grid
    from merging.cli.showing.scatter import SINGLE, scatter
    from merging.cli.showing.screen import marked
    from merging.values.report import scored
    from merging.values.verdict import ACCURACY

    beside = "" if found.objective == ACCURACY else f" ({found.objective})"
    console.print(marked("[bold]from {} (A) to {} (B)[/]{}", found.first, found.second, beside), highlight=False)
    columns = [
        Column(head=name, cells=[Text(scored(value, found.objective)) for value in values])
        for name, values in found.scores.items()
    ]
    shares = [Text(f"{share:.2f}") for share in found.shares]
    Grid(names=shares, columns=columns, corner="share", turns=False).show(console)
    console.print(marked("share: how much of {} is in the mix", found.second), style="dim", highlight=False)
    accuracy = found.objective == "accuracy"
    values = [100 * value if accuracy else value for value in found.scores["held-out"]]
    points = [(share, value, SINGLE) for share, value in zip(found.shares, values, strict=True)]
    points += [(0.0, values[0], "A"), (1.0, values[-1], "B")]
    console.print()
    what = "held-out in %" if accuracy else f"held-out ({found.objective})"
    for line in scatter(points, width=min(console.width - 1, 72), height=10, across="share of B", up=what):
        console.print(line, highlight=False, markup=False, no_wrap=True, overflow="crop")
    for name in found.scores:
        scale = 100 if accuracy else 1
        barrier, (share, score) = found.barrier(name), found.best(name)
        height = f"barrier {scale * barrier:.2f}" if barrier > 1e-12 else "no barrier"
        console.print(
            f"{showable(name)}: {height}; highest at {share:.2f}, {scored(score, found.objective)}", highlight=False
        )

"""``merge check``: opens everything a run would use, says all that is wrong with it, and what the run will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.configurations import Configured
from merging.cli.asking.options import shared
from merging.cli.asking.request import requested, sound_settings
from merging.cli.asking.signals import stop_on_signal
from merging.cli.showing.flags import in_flags
from merging.errors import InterruptedRunError, MergingError, Stopped, showable
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher
from merging.values.wording import alike, plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.text import Text

    from merging.cli.showing.grid import Column
    from merging.looking.check import Checked, CheckedModel
    from merging.looking.sets import CheckedSet
    from merging.plugins.task import Split

PARTS = ("held_out", "test", "train", "unlabelled")
"""Keys of a [task] that name data."""
MANY = 16
"""Models that are listed, where all of them agree."""
THUMBNAIL = 16
"""Pixels of a small picture in the terminal."""


@click.command("check", cls=Configured)
@shared("models", "base", "key", "task")
@shared("strategy", strategy="Whose run is estimated.  [default: manifoldmix]")
@shared(
    *("partitioner", "optimizer", "objective", "options", "search", "passes", "cache", "vocabulary", "plugin", "rules"),
    without=("compile", "cache_memory", "exact_savings"),  # the estimate knows nothing of these
)
@click.option("--pictures", metavar="FILE.png", help="Write a strip of samples of each set.")
@click.option("--samples", type=click.IntRange(1, 100), default=12, show_default=True, metavar="N", help="In a strip.")
@shared("as_json", "trust_code")
def command(**flags: Any) -> None:
    """Open everything that merge run would use, before it does.

    Every checkpoint is read to its end (names and shapes against the model, NaN and infinite values), every set is
    counted (classes, samples that also stand in another set), and a timed batch says how long the run may take. All
    mistakes are listed; with any, the exit code is 2. One model is scored on 256 held-out samples, and a warning says
    where it is no better than a guess. Nothing is written but the pictures.
    """
    from merging.cli.showing.screen import Screen, print_json

    console, news = Screen(), Screen(stderr=True)
    if flags["pictures"] is not None:
        from merging.looking.samples import check_place

        check_place(Path(flags["pictures"]))
    found, request = _checked(flags, news)
    decode = _decoder(request)
    if flags["pictures"] is not None and found.task is not None:
        from merging.looking.strips import strips
        from merging.running.leaks import sets_of

        path, names = Path(flags["pictures"]), found.task.classes or None
        strips(sets_of(found.task), path, count=flags["samples"], names=names, decode=decode)
    if flags["as_json"]:
        print_json(found.to_json())
    else:
        _show(console, found, request, decode)
        if flags["pictures"] is not None and found.task is not None:
            console.print(f"samples of each set: {flags['pictures']}", highlight=False, soft_wrap=True)
    for error in found.errors:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {in_flags(error)}", err=True)
    if found.errors:
        raise click.exceptions.Exit(2)


def _checked(flags: dict[str, Any], news: Console) -> tuple[Checked, dict[str, Any]]:
    from merging.cli.asking.resolve import parts_of, plugins, task_of
    from merging.cli.showing.screen import say_built_in
    from merging.cli.showing.terminal import TerminalProgress

    request = requested(flags)
    say_built_in(request, news)
    with contained(), stop_on_signal(news, "stopping") as should_stop, TerminalProgress(news) as progress:
        progress.stage("loading model and data")
        made = plugins(request)
        from merging.looking.check import check

        task, wrong = None, []
        try:
            task = task_of(request, progress)
        except MergingError as error:
            wrong = [str(error), *(each for each in _each_part(request, progress) if each != str(error))]
        settings, senseless = sound_settings(request)
        try:
            found = check(
                request["models"],
                made["strategy"],
                base=request["base"],
                errors=[*wrong, *senseless],
                parts=parts_of(made, task),
                settings=settings,
                watcher=Watcher(progress=progress, should_stop=should_stop),
            )
        except Stopped:
            raise InterruptedRunError("interrupted; nothing was written") from None
    return found, request


def _each_part(request: dict[str, Any], progress: Any) -> list[str]:
    """What is wrong with every single data set of a [task]: opened as a whole, a task ends at the first."""
    table = request["task"]
    if not isinstance(table, dict) or table.get("name"):
        return []
    shared = {key: value for key, value in table.items() if key not in (*PARTS, "shifts")}
    first = {key: table[key] for key in ("held_out", "train") if table.get(key)}  # one of them may name the classes
    alone = [{"held_out": first["held_out"]}, *([first] if "train" in first else [])]
    found = _mistakes(request, [shared | parts for parts in alone], progress)
    tests = [*([table["test"]] if table.get("test") else []), *table.get("shifts", {}).values()]
    if found:  # nothing to open them beside
        more = [shared | {"held_out": part} for part in tests]
    else:
        more = [shared | first | {"test": part} for part in tests]
        more += [shared | first | {"unlabelled": table["unlabelled"]}] if table.get("unlabelled") else []
    return list(dict.fromkeys([*found, *_mistakes(request, more, progress)]))


def _mistakes(request: dict[str, Any], tasks: list[dict[str, Any]], progress: Any) -> list[str]:
    """What is wrong with each of several tasks."""
    from merging.cli.asking.resolve import task_of

    found = []
    for task in tasks:
        try:
            task_of(request | {"task": task}, progress)
        except MergingError as error:
            found.append(str(error))
    return found


def _decoder(request: dict[str, Any]) -> Any:
    """What turns stored token ids into text, for a [task] with a text model."""
    table = request["task"]
    if not isinstance(table, dict) or not str(table.get("model", "")).startswith("transformers:"):
        return None
    from merging.models.catalogue import model_source

    try:
        return getattr(model_source(table["model"]), "decode", None)
    except MergingError:  # said already
        return None


def _show(console: Console, found: Checked, request: dict[str, Any], decode: Any) -> None:
    """Prints whether everything fits, what the run costs and what to look at; then what was found of what."""
    from merging.cli.showing.screen import warned

    models = [*found.models, *([found.base] if found.base else [])]
    names = [name for model in models for name in (model.path, model.name)]
    _show_verdict(console, found, request["strategy"], len(alike(found.warnings, names)))
    warned(console, found.warnings, names)
    if models:
        console.print()
        _show_models(console, models, found.base)
    if found.sets:
        console.print()
        _show_sets(console, found.sets)
    if found.task is not None:
        _show_samples(console, found, decode)


def _show_verdict(console: Console, found: Checked, strategy: str, warnings: int) -> None:
    from merging.cli.showing.screen import marked

    if found.errors:
        count = plural(len(found.errors), "mistake")
        console.print(marked("[bold red]Not everything fits:[/] {}, at the end.", count), highlight=False)
    else:
        said = f"; {plural(warnings, 'warning')} below" if warnings else ""
        console.print(marked("[bold green]Everything fits[/]{}.", said), highlight=False)
    if found.cost is not None:
        cost = found.cost
        most = "" if cost.complete else "more than "
        known = f"{cost.known:,} of {most}{plural(cost.scores, 'score', ',')} known from earlier commands, "
        several, tokens = cost.workers > 1, " tokens" if found.sets and found.sets[0].tokens else ""
        many = f" by one worker, at least {duration(cost.minutes / cost.workers)} by {cost.workers}" if several else ""
        console.print(
            marked(
                f"[bold]{{}}:[/] {cost.words}, {known if cost.known else ''}"
                f"[bold]{most}{duration(cost.minutes)}[/]{many} ({cost.samples_per_second:,.0f} "
                f"samples a second in batches of {cost.batch:,}{tokens} on {cost.device})",
                strategy,
            ),
            highlight=False,
        )


def _show_models(console: Console, models: list[CheckedModel], base: CheckedModel | None) -> None:
    """A line a model; of many that agree in everything but their content, one for all."""
    from rich.text import Text

    from merging.cli.showing.grid import Column, Grid
    from merging.cli.showing.screen import marked

    kinds = {(model.tensors, model.parameters, model.dtypes, model.adapter, model.error) for model in models}
    if len(models) > MANY and len(kinds) == 1 and models[0].error is None:
        size = f"{plural(models[0].tensors, 'tensor', ',')}, {plural(models[0].parameters, 'parameter', ',')}"
        also = " and the base" if base is not None else ""
        count = plural(len(models) - (base is not None), "model")
        each = f"each {size}, {', '.join(models[0].dtypes)} (--json lists them)"
        said = f"{count}{also}: {models[0].adapter or 'whole'}; {each}"
        console.print(said, highlight=False)
        return

    def cells(tell: Callable[[CheckedModel], str]) -> list[Text]:
        return [Text(tell(model)) for model in models]

    states = [
        marked("[red]see below[/]")
        if model.error
        else marked("[dim]base[/]")
        if model is base
        else marked("[green]{}[/]", model.adapter or "whole")
        for model in models
    ]
    columns = [
        Column(head="tensors", cells=cells(lambda model: f"{model.tensors:,}" if model.tensors else ""), rank=2),
        Column(head="parameters", cells=cells(lambda model: f"{model.parameters:,}" if model.tensors else "")),
        Column(head="dtype", cells=cells(lambda model: ", ".join(model.dtypes)), rank=3, right=False),
        Column(head="content", cells=cells(lambda model: (model.hash or "")[:12]), rank=4, right=False),
        Column(head="", cells=states, right=False),
    ]
    names = [Text(showable(model.name)) for model in models]
    Grid(names=names, columns=columns, corner="model", elsewhere="--json", turns=False).show(console)


def _show_sets(console: Console, sets: tuple[CheckedSet, ...]) -> None:
    from rich.text import Text

    from merging.cli.showing.grid import Column, Grid

    samples, classes, smallest, largest, stored = (list[Text]() for _ in range(5))
    for each in sets:
        present = [count for count in each.counts if count]
        some = str(len(present)) + (f" of {len(each.counts)}" if each.missing else "")
        samples.append(Text(f"{each.samples:,}"))
        classes.append(Text(some if present else "numbers" if each.labels == "numbers" else "no labels"))
        smallest.append(Text(f"{min(present):,}" if present else ""))
        largest.append(Text(f"{max(present):,}" if present else ""))
        stored.append(Text(f"{each.dtype} {' × '.join(map(str, each.shape)) or 'scalar'}"))
    columns = [
        Column(head="samples", cells=samples),
        Column(head="classes", cells=classes),
        Column(head="smallest class", cells=smallest, rank=2),
        Column(head="largest class", cells=largest, rank=2),
        Column(head="stored as", cells=stored, rank=3, right=False),
    ]
    if sets[0].tokens:
        columns = [Column(head="samples", cells=samples), *_text_columns(sets)]
    names = [Text(showable(each.name)) for each in sets]
    Grid(names=names, columns=columns, corner="set", elsewhere="--json", turns=False).show(console)


def _text_columns(sets: tuple[CheckedSet, ...]) -> list[Column]:
    """What sets of a language model hold."""
    from rich.text import Text

    from merging.cli.showing.grid import Column

    choices = [f", {each.choices} choices" if each.choices else "" for each in sets]
    kinds = ["documents and questions" if each.labels == "both" else each.labels for each in sets]
    return [
        Column(head="of", cells=[Text(a + b) for a, b in zip(kinds, choices, strict=True)], right=False),
        Column(head="scored tokens", cells=[Text(f"{each.scored:,}") for each in sets]),
        Column(head="all tokens", cells=[Text(f"{each.tokens:,}") for each in sets], rank=2),
        Column(head="longest row", cells=[Text(f"{each.shape[0]:,}") for each in sets], rank=3),
    ]


def _show_samples(console: Console, found: Checked, decode: Any) -> None:
    """A few texts of each set; pictures where the terminal shows every colour."""
    from rich.text import Text

    from merging.cli.showing.screen import marked
    from merging.looking.samples import chosen, half_blocks, label, pixels
    from merging.plugins.sequences import Sequences
    from merging.running.leaks import sets_of

    if found.task is None:
        return
    names = found.task.classes or None
    colours = console.is_terminal and console.color_system == "truecolor"
    for name, split in sets_of(found.task).items():
        if decode is not None and isinstance(split.inputs, Sequences):
            _show_texts(console, name, split, decode)
        elif decode is not None:
            console.print(marked("\n[bold]{}[/]", name))
            for index in chosen(split, 3):
                text = f"  {label(split, index, names)}: {decode(split.inputs[index])}"
                console.print(Text(showable(text)), highlight=False, overflow="ellipsis", no_wrap=True)
        elif colours:
            room = max(1, console.width // (THUMBNAIL + 1))
            images = [pixels(split, index) for index in chosen(split, min(8, room))]
            rows = [half_blocks(image, THUMBNAIL) for image in images if image is not None]
            if rows:
                console.print(marked("\n[bold]{}[/]", name))
                for lines in zip(*rows, strict=True):
                    console.print(Text.from_markup(" ".join(lines)), no_wrap=True)


def _show_texts(console: Console, name: str, split: Split, decode: Any) -> None:
    """A few samples of a language model, what is scored in brackets; the right choice of a question is ticked."""
    from rich.text import Text

    from merging.cli.showing.screen import marked
    from merging.looking.marked import CLOSE, OPEN, Stretch, shown
    from merging.looking.samples import chosen

    def written(stretches: tuple[Stretch, ...]) -> Text:
        return Text.assemble(*((str(each), "" if each.scored else "dim") for each in stretches))

    console.print(marked("\n[bold]{}[/] (scored: {}…{})", name, OPEN, CLOSE))
    for index in chosen(split, 3):
        sample = shown(split, index, decode)
        more = f" (and {plural(sample.rows - 1, 'window')} more)" if sample.right is None and sample.rows > 1 else ""
        head = "" if sample.right is not None else f"{plural(sample.scored, 'token', ',')}: "
        console.print(Text.assemble(f"  {head}", written(sample.stretches), more), highlight=False, soft_wrap=True)
        for number, choice in enumerate(sample.choices):
            tick = "✓" if number == sample.right else " "
            console.print(Text.assemble(f"  {tick} ", written((choice,))), highlight=False, soft_wrap=True)


def duration(minutes: float) -> str:
    """Minutes as people say them.

    >>> duration(0.02), duration(2.5), duration(600)
    ('2 seconds', '2.5 minutes', '10 hours')
    """
    if minutes < 1:
        seconds = max(1, -int(-60 * minutes // 1))
        return plural(seconds, "second")
    return f"{minutes:.2g} minutes" if minutes < 100 else f"{minutes / 60:.2g} hours"

"""``merge inspect``: the components of a model, and how the models of a pool lie to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Asking, shared
from merging.cli.asking.request import requested, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.errors import RequirementError, TaskError, showable
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher
from merging.values.wording import plural

if TYPE_CHECKING:
    from rich.console import Console

    from merging.looking.inspection import Inspection

MATRIX = 16
"""Pools up to this size are shown as a matrix of distances."""


@click.command(
    "inspect",
    cls=Asking,
    epilog="Without --model, --models and merge.toml, the pool of the built-in task 'digits' is inspected.",
)
@click.option("--model", metavar="SPEC", help="An architecture without checkpoints: open_clip:NAME, timm:NAME, …")
@click.option("--classes", type=int, metavar="N", help="Outputs of its head, where the architecture leaves that open.")
@shared("models", "base", "key", "task", "partitioner")
@click.option("-o", "--option", "options", multiple=True, metavar="KIND.KEY=VALUE", help="partitioner.… or objective.…")
@shared("freeze")
@shared("objective", objective="What models and midpoints are scored by.  [default: accuracy]")
@click.option(
    "--barriers",
    type=click.Choice(["none", "best", "all"]),
    default="best",
    show_default=True,
    help="Score midpoints: of the best model with each other, of all pairs, or none (needs a task).",
)
@click.option(
    "--interpolate", nargs=2, metavar="A B", help="Score the line between two models of the pool, or two files."
)
@click.option("--steps", type=int, metavar="N", help="Parts of that line.  [default: 10]")
@click.option("--tests", is_flag=True, help="Score the test sets along that line too.")
@click.option("--plot", metavar="FILE", help="Write that line's curve as .png or .svg.")
@shared("device", "threads", "cache", "plugin")
@click.option("--tensors", is_flag=True, help="List every component's tensors.")
@shared("as_json", "trust_code")
def command(**flags: Any) -> None:
    """Look at a model, or at a pool, under a partition.

    A model: components with their tensors and parameters, and which are inert (reach no output). A pool: that, and
    duplicates, distances, cosines with --base, and how far midpoints fall below their two ends. Two models
    (--interpolate): the scores along the line between them, and the barrier on it.
    """
    from merging.cli.showing.screen import Screen, print_json

    if flags["interpolate"] is not None:
        from merging.cli.line import show_line

        source = click.get_current_context().get_parameter_source("barriers")
        if source is click.core.ParameterSource.COMMANDLINE:
            raise RequirementError("--barriers does nothing for --interpolate: leave it out")
        show_line(flags)
        return
    for name in ("steps", "tests", "plot"):
        if flags[name]:
            raise RequirementError(f"--{name} belongs to --interpolate A B")

    if flags["classes"] is not None and (flags["model"] is None or flags["classes"] < 1):
        raise RequirementError("--classes is the number of outputs, 1 or more, of the architecture named by --model")
    console, news = Screen(), Screen(stderr=True)
    found = _inspect(flags, news)
    if flags["as_json"]:
        print_json(found.to_json())
    else:
        _show(console, found, tensors=flags["tensors"])


def _inspect(flags: dict[str, Any], news: Console) -> Inspection:
    from merging.cli.asking.resolve import plugins, task_and_pool
    from merging.cli.showing.terminal import TerminalProgress

    bare = ("–",) if flags["model"] is not None else ()  # models given: the built-in task is no default then
    request = requested(flags | {"models": flags["models"] or bare})
    with contained(), stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
        if not flags["as_json"] or news.is_terminal:
            progress.stage("loading torch and plug-ins")
        made = plugins(request)
        if flags["model"] is not None and not flags["models"]:
            return _architecture(flags, made["partitioner"])
        from merging.looking.inspection import Architecture, inspect_pool
        from merging.running.given import Parts

        task, pool = task_and_pool(request, frozenset())
        architecture = Architecture()
        if task is None and flags["model"] is not None:
            from merging.models.catalogue import model_source

            source = model_source(flags["model"])
            architecture = Architecture(module=source.build(pool), example=source.example())
        return inspect_pool(
            pool,
            made["partitioner"],
            barriers=flags["barriers"],
            parts=Parts(task=task, objective=made["objective"]),
            architecture=architecture,
            settings=settings_of(request, ("freeze", "device", "threads", "remember", "verify")),
            watcher=Watcher(progress=progress, should_stop=should_stop),
        )


def _architecture(flags: dict[str, Any], partitioner: Any) -> Inspection:
    """A bare architecture; on the meta device where it can run there: no weights, no arithmetic."""
    import torch

    from merging.looking.inspection import inspect_module
    from merging.models.catalogue import model_source

    source = model_source(flags["model"])
    try:
        with torch.device("meta"):
            module = source.module(flags["classes"])
        return inspect_module(module.to("meta"), partitioner, source.example().to("meta"))
    except (NotImplementedError, RuntimeError):  # it looks at values, which meta tensors do not have
        pass
    try:
        return inspect_module(source.module(flags["classes"]), partitioner, source.example())
    except (NotImplementedError, RuntimeError, TypeError) as error:  # a user's model may need other inputs
        raise TaskError(f"'{flags['model']}' cannot take an image batch ({str(error).splitlines()[0]})") from None


def _show(console: Console, found: Inspection, *, tensors: bool) -> None:
    from merging.cli.showing import screen

    if found.pool:
        _show_pool(console, found)
    table = screen.table()
    table.add_column("component")
    columns = ["tensors", "parameters", *(["spread"] if found.geometry else [])]
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column("")
    for index, component in enumerate(found.partition.components):
        numbers = [str(len(component.tensors)), f"{found.parameters(component):,}"]
        if found.geometry:
            numbers.append(f"{100 * found.geometry.spread[index]:.2f} %")
        idle = component.inert or component.frozen or component.constant
        table.add_row(showable(component.name), *numbers, _state(found, index), style="dim" if idle else None)
        for name in component.tensors if tensors else ():
            shape, dtype = found.tensors[name]
            table.add_row(f"  {showable(name)}", "", " × ".join(map(str, shape)) or "scalar", dtype, style="dim")
    console.print(table)
    total = sum(found.parameters(component) for component in found.partition.components)
    active = f", {len(found.partition.active)} active" if found.marked else ""
    console.print(
        f"{plural(len(found.partition), 'component')}{active}; {len(found.tensors)} tensors, {total:,} parameters",
        highlight=False,
    )
    if not found.marked:
        console.print("Which are inert is not known: name the architecture with --model, or a --task.", style="dim")
    for group in found.ties:
        console.print(showable(f"tied: {', '.join(group)}"), highlight=False)
    for note in found.notes:
        console.print(screen.remark(note), highlight=False)


def _state(found: Inspection, index: int) -> str:
    component = found.partition.components[index]
    if component.inert or component.frozen:
        return "inert" if component.inert else "frozen"
    return "equal in all models" if component.constant else "active" if found.marked else ""


def _show_pool(console: Console, found: Inspection) -> None:
    from merging.cli.showing import screen
    from merging.cli.showing.screen import marked
    from merging.values.report import scored

    geometry, names = found.geometry, found.pool
    table = screen.table()
    table.add_column("")
    table.add_column("model")
    with_best = {
        b.second if b.first == _best(found) else b.first: b
        for b in found.barriers
        if _best(found) in (b.first, b.second)
    }
    heads = ["held-out" if _scale(found) == 100 else f"held-out ({found.objective})"] if found.scores else []
    heads += ["midpoint with best", "barrier"] if with_best else []
    heads += ["from base"] if geometry and geometry.from_base is not None else []
    heads += ["nearest", "farthest"] if geometry else []
    for head in heads:
        table.add_column(showable(head), justify="right")
    for i, name in enumerate(names):
        row = [scored(found.scores[i], found.objective)] if found.scores else []
        if with_best:
            barrier = with_best.get(name)
            row += (
                [scored(barrier.midpoint, found.objective), _height(found, barrier.height)] if barrier else ["best", ""]
            )
        if geometry is not None:
            row += [f"{100 * geometry.from_base[i] / geometry.norm:.2f} %"] if geometry.from_base is not None else []
            others = [geometry.distances[i, j] for j in range(len(names)) if j != i]
            row += [f"{100 * value / geometry.norm:.2f} %" for value in (min(others), max(others))]
        table.add_row(str(i), showable(name), *row)
    console.print(table)
    if geometry is not None and len(names) <= MATRIX:
        _show_matrix(console, found)
    for group in found.duplicates:
        console.print(marked("[yellow]duplicates:[/] {} hold the same weights", ", ".join(group)), highlight=False)
    if len(found.barriers) > len(names):
        worst = max(found.barriers, key=lambda b: b.height)
        console.print(
            marked(
                "highest barrier of {} pairs: {}{} between {} and {}",
                len(found.barriers),
                _height(found, worst.height),
                " points" if _scale(found) == 100 else "",
                worst.first,
                worst.second,
            ),
            highlight=False,
        )
    console.print()


def _scale(found: Inspection) -> int:
    """Accuracies are shown in percent, other scores as they are."""
    return 100 if found.objective == "accuracy" else 1


def _midpoint(found: Inspection, score: float) -> str:
    return f"{100 * score:.1f}" if _scale(found) == 100 else f"{score:.3g}"


def _height(found: Inspection, barrier: float) -> str:
    return f"{100 * barrier:+.2f}" if _scale(found) == 100 else f"{barrier:+.3g}"


def _best(found: Inspection) -> str:
    return found.pool[max(range(len(found.scores)), key=lambda i: (found.scores[i], -i))] if found.scores else ""


def _show_matrix(console: Console, found: Inspection) -> None:
    """Distances in percent of the weights' own length, below the diagonal; cosines (or midpoints) above it."""
    from merging.cli.showing import screen
    from merging.cli.showing.screen import marked

    geometry, n = found.geometry, len(found.pool)
    assert geometry is not None  # noqa: S101 (for the type checker)
    midpoints = {frozenset((b.first, b.second)): b.midpoint for b in found.barriers}
    every = len(midpoints) == n * (n - 1) // 2 and n > 2
    in_percent = " in %" if _scale(found) == 100 else ""
    above = f"midpoint's held-out score{in_percent}" if every else "cosine of the differences from the base"
    title = "below the diagonal: distance in % of the weights' length"
    table = screen.table(
        title_justify="left",
        padding=(0, 1, 0, 0),
        title=title + (f"; above: {above}" if every or geometry.cosines is not None else ""),
    )
    table.add_column("")
    for j in range(n):
        table.add_column(str(j), justify="right")
    for i in range(n):
        row: list[Any] = []
        for j in range(n):
            if j < i:
                row.append(f"{100 * geometry.distances[i, j] / geometry.norm:.2f}")
            elif j > i and every:
                row.append(_midpoint(found, midpoints[frozenset((found.pool[i], found.pool[j]))]))
            elif j > i and geometry.cosines is not None:
                row.append(marked("[cyan]{}[/]", f"{geometry.cosines[i, j]:.2f}"))
            else:
                row.append("·" if i == j else "")
        table.add_row(str(i), *row)
    console.print(table)

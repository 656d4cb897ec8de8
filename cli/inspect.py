"""``merge inspect``: the components of a model, and how the models of a pool lie to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Asking, shared
from merging.cli.asking.request import requested, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.errors import RequirementError, TaskError
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher

if TYPE_CHECKING:
    from rich.console import Console

    from merging.looking.inspection import Inspection


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
@shared("objective", objective="What models and midpoints are scored by.  [default: accuracy; of texts nll]")
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
        from merging.cli.showing.pool import show_inspection

        show_inspection(console, found, tensors=flags["tensors"])


def _inspect(flags: dict[str, Any], news: Console) -> Inspection:
    from merging.cli.asking.resolve import plugins, task_and_pool
    from merging.cli.showing.screen import say_built_in
    from merging.cli.showing.terminal import TerminalProgress

    bare = ("–",) if flags["model"] is not None else ()  # models given: the built-in task is no default then
    request = requested(flags | {"models": flags["models"] or bare})
    say_built_in(request, news)
    with contained(), stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
        if not flags["as_json"] or news.is_terminal:
            progress.stage("loading torch and plug-ins")
        made = plugins(request)
        if flags["model"] is not None and not flags["models"]:
            return _architecture(flags, made["partitioner"])
        from merging.looking.inspection import Architecture, inspect_pool
        from merging.running.given import Parts

        task, pool = task_and_pool(request, frozenset(), progress)
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

"""``merge list``: every registered plug-in, a line each."""

from __future__ import annotations

from typing import Any

import click

from merging.cli.asking.options import shared


@click.command("list")
@click.argument("kind", required=False)
@shared("plugin", "as_json")
def command(kind: str | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """List every plug-in: strategies, partitioners, optimizers, objectives, regimes, tasks, models, forms, sinks.

    With KIND those of one kind, such as tasks. Of a task the sets are listed, which --split takes.
    """
    from merging.cli.showing.screen import print_json, warn
    from merging.errors import unknown
    from merging.plugins.discovery import load_all
    from merging.plugins.registry import PLUGINS

    names = {form: each for each in PLUGINS for form in (each, several(each))}
    if kind is not None and kind not in names:
        raise unknown("kind of plug-in", kind, map(several, PLUGINS))
    warn(load_all(plugin))
    kinds = list(PLUGINS) if kind is None else [names[kind]]
    if as_json:
        print_json({each: {name: PLUGINS[each][name].summary for name in PLUGINS[each]} for each in kinds})
    else:
        _print({each: {name: PLUGINS[each][name] for name in PLUGINS[each]} for each in kinds})


def several(kind: str) -> str:
    """The word for several plug-ins of a kind.

    >>> several("strategy"), several("task")
    ('strategies', 'tasks')
    """
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _print(found: dict[str, dict[str, Any]]) -> None:
    from rich.text import Text

    from merging.cli.showing.entries import show_entries
    from merging.cli.showing.screen import Screen, marked
    from merging.errors import showable

    console = Screen()
    for kind, entries in found.items():
        if kind != next(iter(found)):
            console.print()
        console.print(marked("[bold]{}[/]", several(kind)))
        shown = []
        for name, plugin in entries.items():
            sets = ", ".join(getattr(plugin, "sets", ()))
            said = [Text(showable(plugin.summary)), *([marked("[dim]sets: {}[/]", sets)] if sets else [])]
            shown.append((marked("  {}", name), said))
        show_entries(console, shown)
    console.print("\nmerge describe NAME shows options, defaults and paper.", highlight=False)

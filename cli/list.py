"""``merge list``: every registered plug-in, a line each."""

from __future__ import annotations

from typing import Any

import click

from merging.cli.asking.options import shared


@click.command("list")
@click.argument("kind", required=False)
@shared("plugin", "as_json")
def command(kind: str | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """List every plug-in: strategies, partitioners, optimizers, objectives, regimes, tasks, models, forms of data.

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
    from merging.cli.showing.screen import Screen, marked, table
    from merging.errors import showable

    console = Screen()
    width = max((len(showable(name)) for entries in found.values() for name in entries), default=0)
    for kind, entries in found.items():
        if kind != next(iter(found)):
            console.print()
        console.print(marked("[bold]{}[/]", several(kind)))
        shown = table(show_header=False)
        shown.add_column(width=2 + min(width, 28), overflow="fold")
        shown.add_column()
        for name, plugin in entries.items():
            shown.add_row(marked("  {}", name), showable(plugin.summary))
            if sets := ", ".join(getattr(plugin, "sets", ())):
                shown.add_row("", marked("[dim]sets: {}[/]", sets))
        console.print(shown, highlight=False)
    console.print("\nmerge describe NAME shows options, defaults and paper.", highlight=False)

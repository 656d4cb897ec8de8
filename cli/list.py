"""``merge list``: every registered plug-in, a line each."""

from __future__ import annotations

from typing import Any

import click

from merging.cli.asking.options import shared


@click.command("list")
@shared("plugin", "as_json")
def command(plugin: tuple[str, ...], as_json: bool) -> None:
    """List every plug-in: strategies, partitioners, optimizers, objectives, regimes, tasks, models, forms of data."""
    from merging.cli.showing.screen import print_json, warn
    from merging.plugins.discovery import load_all
    from merging.plugins.registry import PLUGINS

    warn(load_all(plugin))
    found = {kind: {name: registry[name].summary for name in registry} for kind, registry in PLUGINS.items()}
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from merging.cli.showing.screen import Screen, marked
    from merging.errors import showable

    table = Table(box=None, pad_edge=False)
    for column in ("kind", "name", "what it does"):
        table.add_column(column)
    for kind, entries in found.items():
        for number, (name, summary) in enumerate(entries.items()):
            table.add_row("" if number else kind, marked("[bold]{}[/]", name), showable(summary))
        table.add_section()
    Screen().print(table)
    click.echo("\nmerge describe NAME shows options, defaults and paper.")

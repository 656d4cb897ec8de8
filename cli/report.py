"""``merge report``: tables from results that lie in files already."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from merging.errors import RequirementError
from merging.published import SETS, Published, Result, read

AVERAGE = "average"
LABEL = 16
"""Width that a row's name needs at least: "ManifoldMixMS-C8"."""


@click.command("report")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--published", multiple=True, metavar="FILE", help="Published results, .jsonl or .json; FILEs may follow."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(files: tuple[str, ...], published: tuple[str, ...], as_json: bool) -> None:
    """Rebuild Table 1 of Fassold (2023) from published results, and say where the printed one differs.

    FILEs are those of the model-soups release (individual_model_results.jsonl, …) and traces of the published runs
    (manifoldmix_c8_trace.json, …). Each is recognised by what is in it; a row that no file gives is left out.
    """
    if not published:
        raise RequirementError("nothing to report on: merge report --published FILE [FILE …] (.jsonl or .json results)")
    found = read([*published, *files])
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        _show(found)


def _show(found: Published) -> None:
    console = Console()
    console.width = max(console.width, LABEL + 1 + len("IN-Sketch"))  # in less, rich would cut numbers
    console.print("Table 1 of Fassold 2023, from the files: top-1 accuracy in %", style="bold", highlight=False)
    for names in _parts(console.width):
        console.print(_table(found.rows, names), highlight=False)
    console.print(
        "Best of each column in bold. IN-2p: images held out of ImageNet's training set, which rank the models. "
        "average: over the five shifted sets.",
        style="dim",
    )
    for finding in found.findings:
        console.print(Text.assemble(("note: ", "yellow"), finding), soft_wrap=True)


def _parts(width: int) -> Iterator[list[str]]:
    """The columns, in as many tables as a narrow terminal needs."""
    part: list[str] = []
    left = width - LABEL
    for name, heading in {**SETS, AVERAGE: AVERAGE}.items():
        needed = 1 + max(len(heading), len("80.39"))
        if part and needed > left:
            yield part
            part, left = [], width - LABEL
        part.append(name)
        left -= needed
    yield part


def _table(rows: tuple[Result, ...], names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 0, 0, 1))
    table.add_column("", min_width=LABEL, overflow="fold")
    values = {name: [row.average if name == AVERAGE else row.accuracies.get(name) for row in rows] for name in names}
    for name in names:
        table.add_column(SETS.get(name, name), justify="right", no_wrap=True)
    best = {name: max((v for v in column if v is not None), default=None) for name, column in values.items()}
    for number, row in enumerate(rows):
        cells = []
        for name in names:
            value = values[name][number]
            text = "–" if value is None else f"{100 * value:.2f}"
            cells.append(f"[bold]{text}[/]" if value is not None and value == best[name] else text)
        table.add_row(escape(row.label), *cells)
    return table

"""``merge report``: tables from results that lie in files already."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from merging.benchmarking.published import SETS, Published, Result, read
from merging.cli.asking.options import shared
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import Screen, marked, notes, print_json
from merging.errors import RequirementError, showable
from merging.values.report import number

AVERAGE = "average"


@click.command("report")
@click.argument("paths", nargs=-1, metavar="[DIR]...")
@click.option(
    "--published", multiple=True, metavar="FILE", help="Published results, .jsonl or .json; more FILEs may follow."
)
@click.option("--output", metavar="DIR", help="Write tables, page and pictures there (HTML, Markdown, CSV, LaTeX, …).")
@shared("open_page")
@shared("as_json")
def command(
    paths: tuple[str, ...], published: tuple[str, ...], output: str | None, open_page: bool, as_json: bool
) -> None:
    """Compare runs and benchmarks of any kind, or rebuild Table 1 of Fassold (2023); nothing is evaluated.

    DIRs are folders of merge run and merge benchmark, or folders that hold some, as deep as merge runs looks. Rows that
    have a set of samples in common stand in one table, all others in tables of their own; what cannot be shown is
    named, with the reason.

    With --published, FILEs are those of the model-soups release (individual_model_results.jsonl, …) and traces of the
    published runs (manifoldmix_c8_trace.json, …). Each is recognised by what is in it; a row that no file gives is left
    out, and it is said where the printed table differs. Beside DIRs, or on a page, they are a table like the others.
    """
    folders = [Path(path) for path in paths if not published or Path(path).is_dir()]
    files = [*published, *(path for path in paths if published and not Path(path).is_dir())]
    if (not folders and not files) or any(path.suffix in (".json", ".jsonl") and path.is_file() for path in folders):
        raise RequirementError(
            "nothing to report on: merge report DIR [DIR …] for folders of runs and benchmarks, "
            "merge report --published FILE [FILE …] for .jsonl or .json results"
        )
    told = read(files) if files else None
    if told is not None and not folders and output is None and not open_page:
        if as_json:
            print_json(told.to_json())
        else:
            _show(told)
        return
    from merging.cli.showing.compared import Wish, compare

    compare(folders, Wish(output=output, opens=open_page, as_json=as_json), published=told)


def _show(found: Published) -> None:
    console = Screen()
    console.print("Table 1 of Fassold 2023, from the files: top-1 accuracy in %", style="bold", highlight=False)
    _table(found.rows).show(console)
    console.print(
        "Best of each column in bold. IN-2p: images held out of ImageNet's training set, which rank the models. "
        "average: over the five shifted sets.",
        style="dim",
    )
    notes(console, found.findings)


def _table(rows: tuple[Result, ...]) -> Grid:
    columns = []
    for name, head in {**SETS, AVERAGE: AVERAGE}.items():
        values = [row.average if name == AVERAGE else row.accuracies.get(name) for row in rows]
        best = max((value for value in values if value is not None), default=None)
        cells = [
            marked("[bold]{}[/]" if value is not None and value == best else "{}", number(value, percent=True))
            for value in values
        ]
        columns.append(Column(head=head, cells=cells))
    return Grid(names=[Text(showable(row.label)) for row in rows], columns=columns, turns=False)  # as it is printed

"""``merge report``: tables from results that lie in files already."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from merging.benchmarking.published import SETS, Published, Result, read
from merging.cli.asking.options import shared
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import Screen, marked, notes, print_json, say_json
from merging.errors import FolderError, RequirementError, showable
from merging.values.report import number

AVERAGE = "average"


@click.command("report")
@click.argument("paths", nargs=-1, metavar="[DIR]...")
@click.option(
    "--published", multiple=True, metavar="FILE", help="Published results, .jsonl or .json; more FILEs may follow."
)
@click.option("--output", metavar="DIR", help="Write tables, page and pictures there (HTML, Markdown, CSV, LaTeX, …).")
@shared("as_json")
def command(paths: tuple[str, ...], published: tuple[str, ...], output: str | None, as_json: bool) -> None:
    """Compare finished runs and benchmarks, or rebuild Table 1 of Fassold (2023); nothing is evaluated.

    DIRs are folders of merge run and merge benchmark, or folders that hold some: their rows are shown side by side, and
    written with --output.

    With --published, FILEs are those of the model-soups release (individual_model_results.jsonl, …) and traces of the
    published runs (manifoldmix_c8_trace.json, …). Each is recognised by what is in it; a row that no file gives is left
    out, and it is said where the printed table differs.
    """
    if published:
        if output is not None:
            raise RequirementError("--output writes the comparison of folders; published results are printed only")
        found = read([*published, *paths])
        if as_json:
            print_json(found.to_json())
        else:
            _show(found)
        return
    if not paths or any(Path(path).is_file() for path in paths):
        raise RequirementError(
            "nothing to report on: merge report DIR [DIR …] for folders of runs and benchmarks, "
            "merge report --published FILE [FILE …] for .jsonl or .json results"
        )
    _compare([Path(path) for path in paths], output, as_json=as_json)


def _compare(folders: list[Path], output: str | None, *, as_json: bool) -> None:
    from merging.benchmarking.folder import RESULT
    from merging.benchmarking.reading import combine, read_folder
    from merging.storage.folder import check_place
    from merging.storage.lock import is_hidden

    names = _names(_within(folders))
    target = Path(output) if output is not None else None
    if target is not None:
        check_place(target)
    if target is not None and target.exists():
        if any(not is_hidden(path.name) for path in target.iterdir()) and not (target / RESULT).is_file():
            raise FolderError(f"{target} holds other files and no report; choose another --output")
        if len(folders) > 1 and target.resolve() in [folder.resolve() for folder in folders]:
            raise FolderError(f"--output {target} is one of the folders that are compared; choose another one")
    found = combine({name: read_folder(folder) for name, folder in names.items()})
    if target is not None:
        from merging.benchmarking.rendering.forms import render
        from merging.cli.showing.terminal import TerminalProgress

        with TerminalProgress(Screen(stderr=True)) as progress:
            render(found, target, progress)
    if as_json:
        say_json(found.dumps())
        return
    from merging.cli.showing.benchmark_view import show_benchmark

    console = Screen()
    show_benchmark(console, found)
    if target is not None:
        console.print(marked("\nTables, page and pictures: [bold]{}[/]", target), highlight=False, soft_wrap=True)


def _within(folders: list[Path]) -> list[Path]:
    """Folders of results as they are; of any other folder all finished results in it, and what is left out is said."""
    from merging.benchmarking.history import Kind, State, entries, entry_of

    found: list[Path] = []
    for folder in folders:
        below = [] if entry_of(folder) is not None or not folder.is_dir() else entries(folder, 1)
        results = [entry for entry in below if entry.kind in (Kind.RUN, Kind.BENCHMARK)]
        ready = [entry for entry in results if entry.state not in (State.DAMAGED, State.CUT_OFF, State.RUNNING)]
        scored = [entry for entry in ready if entry.held_out is not None]
        for entry in results:
            if entry not in scored:
                why = "it was not scored" if entry in ready else str(entry.state)
                click.echo(f"note: {showable(entry.folder)} is left out: {why}", err=True)
        found += sorted(entry.folder for entry in scored) or [folder]
    return found


def _names(folders: list[Path]) -> dict[str, Path]:
    """Folders by what tells them apart: their last parts, as few as are enough.

    Raises:
        RequirementError: one is there twice.
    """
    whole = [folder.resolve().parts for folder in folders]
    if len(set(whole)) < len(whole):
        raise RequirementError("a folder is named twice; name each one once")
    length = next(n for n in range(1, max(map(len, whole)) + 1) if len({parts[-n:] for parts in whole}) == len(whole))
    return {"/".join(parts[-length:]): folder for parts, folder in zip(whole, folders, strict=True)}


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

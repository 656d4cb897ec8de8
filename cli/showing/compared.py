"""The results of several folders, side by side: on the screen, in a folder, in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from merging.cli.showing.flags import in_flags
from merging.cli.showing.screen import Screen, marked, say_json
from merging.errors import FolderError, showable

if TYPE_CHECKING:
    from merging.benchmarking.published import Published
    from merging.benchmarking.results import Benchmark
    from merging.values.report import Report

PUBLISHED = "published"
"""What published results are called beside folders."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done with a comparison.

    Attributes:
        output: folder that all its forms are written to.
        opens: whether its page is opened.
        as_json: whether it is printed as JSON.
        shows: whether it is printed at all.
    """

    output: str | None = None
    opens: bool = False
    as_json: bool = False
    shows: bool = True


def compare(
    folders: Sequence[Path], wish: Wish, *, published: Published | None = None, depth: int | None = None
) -> None:
    """Compares what lies in folders, and shows, writes and opens it as wished.

    Args:
        folders: folders of results, or with some in them.
        wish: what is to be done.
        published: published results that stand beside them.
        depth: levels of folders that are looked into; None: as many as usual.

    Raises:
        MergingError: there is nothing to compare, or a folder cannot be read or written.
    """
    news = Screen(stderr=True)
    target = _target(wish.output, folders)
    from merging.cli.run import command as run

    try:
        found, report = _read(folders, depth, published, target)
    except FolderError as error:  # a run goes on with a flag of merge run
        raise FolderError(in_flags(error, run)) from None
    for folder, why in found.left_out.items():
        click.echo(f"note: {showable(folder)} is left out: {in_flags(in_flags(why), run)}", err=True)
    name = "\n".join(sorted(str(folder.resolve()) for folder in folders)) or found.task
    page = _drawn(found, report, name, target) if target is not None or wish.opens else None
    if wish.shows and wish.as_json:
        say_json(found.dumps())
    elif wish.shows:
        from merging.cli.showing.benchmark_view import show_benchmark

        console = Screen()
        show_benchmark(console, found)
        if target is not None:
            console.print(marked("\nTables, page and pictures: [bold]{}[/]", target), highlight=False, soft_wrap=True)
    if page is not None and wish.opens:
        from merging.cli.showing.opening import open_page

        open_page(page, news)


def _target(output: str | None, folders: Sequence[Path]) -> Path | None:
    """The folder to write to, checked before anything is read.

    Raises:
        FolderError: it holds something else than a report, or is one of those that are compared.
    """
    from merging.benchmarking.folder import RESULT
    from merging.storage.folder import check_place
    from merging.storage.lock import is_hidden

    if output is None:
        return None
    target = Path(output)
    check_place(target)
    if not target.exists():
        return target
    if any(not is_hidden(path.name) for path in target.iterdir()) and not (target / RESULT).is_file():
        raise FolderError(f"{target} holds other files and no report; choose another --output")
    if len(folders) > 1 and target.resolve() in [folder.resolve() for folder in folders]:
        raise FolderError(f"--output {target} is one of the folders that are compared; choose another one")
    return target


def _read(
    folders: Sequence[Path], depth: int | None, published: Published | None, target: Path | None
) -> tuple[Benchmark, Report | None]:
    """Reads and combines; of a single run also its report, whose answer the page shows.

    Raises:
        FolderError: nothing could be read.
    """
    from merging.benchmarking.finding import Found, find
    from merging.benchmarking.history import DEPTH
    from merging.benchmarking.published_table import as_benchmark
    from merging.benchmarking.reading import read_folder
    from merging.benchmarking.side_by_side import combine
    from merging.values.report import Report

    there = find(folders, DEPTH if depth is None else depth) if folders else Found({}, {})
    left_out = {name: why for name, why in there.left_out.items() if target is None or not _is(target, name)}
    parts: dict[str, Benchmark] = {}
    for name, folder in there.results.items():
        try:
            parts[name] = read_folder(folder)
        except FolderError as error:
            if len(there.results) == 1 and published is None:
                raise
            left_out[str(folder)] = str(error)
    if published is not None:
        parts[PUBLISHED if PUBLISHED not in parts else f"{PUBLISHED} results"] = as_benchmark(published)
    if not parts:
        raise FolderError(f"nothing to compare: {next(iter(left_out.values()))}")
    found = combine(parts, left_out)
    single = found.run and not found.apart and len(there.results) == 1
    return found, Report.from_json(next(iter(there.results.values()))) if single else None


def _is(target: Path, name: str) -> bool:
    return target.exists() and target.samefile(name)


def _drawn(found: Benchmark, report: Report | None, name: str, target: Path | None) -> Path:
    """Writes all forms to a folder, or the page alone to the cache; gives the page."""
    from merging.benchmarking.rendering.forms import page, render
    from merging.cli.showing.opening import kept_page
    from merging.cli.showing.terminal import TerminalProgress

    with TerminalProgress(Screen(stderr=True)) as progress:
        if target is not None:
            render(found, target, progress, report)
            return target / "benchmark.html"
        return kept_page(page(found, progress, report), name)

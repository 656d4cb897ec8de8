"""Everything that a benchmark's folder shows: CSV, Markdown, LaTeX, the HTML page, pictures as PNG and SVG."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from merging.benchmarking.folder import PICTURES, POOL, RESULT, withdraw
from merging.benchmarking.reading import of_run
from merging.benchmarking.rendering.documents import to_csv, to_latex, to_markdown
from merging.benchmarking.rendering.leaderboard import pool_csv
from merging.benchmarking.results import Benchmark
from merging.errors import FolderError, OptionError, refused
from merging.plugins.progress import Progress, Silent
from merging.plugins.user_code import kind_of
from merging.running.views import RunViews
from merging.storage import atomic
from merging.storage.lock import Lock
from merging.storage.result import PAGE
from merging.values.report import Report
from merging.values.verdict_card import VerdictCard, card_of

if TYPE_CHECKING:
    from merging.benchmarking.rendering.figures import Figure


def render(
    found: Benchmark | Report | RunViews,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> list[Path]:
    """Writes all forms of a benchmark's or a run's results into a folder; each file whole or not at all.

    Args:
        found: the results of a benchmark, or a run or its report, whose rows are rendered as a benchmark's.
        folder: made where it is not there. Pictures that an earlier rendering has left and this one lacks are removed.
        progress: told what happens.
        report: the report of the run whose rows ``found`` has, where it was read as a benchmark; its answer is shown.

    Returns:
        The files: ``benchmark.json``, ``pool.csv`` where the models of the pool were scored, ``benchmark.csv``,
        ``.tex``, ``.md``, ``.html``, the CSV of what stands apart (``benchmark-2.csv``, …), then the pictures.

    Raises:
        FolderError: the folder cannot be written.
        OptionError: no folder was given, or results of another kind.
    """
    results, report = _results(found, report)
    if folder is None:
        raise OptionError("render writes files: give it a folder, as in render(found, 'folder')")
    folder = Path(folder)
    from merging.benchmarking.rendering.page import to_html  # loads what draws

    lock: Lock | None = None
    new = not folder.exists()
    try:
        atomic.make_folder(folder)
        lock = Lock(folder)
        aside = atomic.new_folder(folder)
        atomic.make_folder(aside / PICTURES)
        progress = progress or Silent()
        drawn = _drawn(results, progress, "tables and pictures", aside / PICTURES)
        makers: dict[str, Callable[[], str]] = {
            **_tables(results),
            "benchmark.csv": lambda: to_csv(results),
            "benchmark.tex": lambda: to_latex(results),
            "benchmark.md": lambda: to_markdown(results),
            "benchmark.html": lambda: to_html(results, drawn, _own(report)),
        }
        atomic.put(aside / RESULT, results.dumps())
        for name, made in makers.items():
            atomic.put(aside / name, made())
        atomic.sync_tree(aside)
        progress.advance()
        shown = sorted(path.name for path in (aside / PICTURES).iterdir())
        withdraw(folder)
        atomic.move([aside / RESULT], folder)
        atomic.make_folder(folder / PICTURES)
        atomic.move([aside / PICTURES / name for name in shown], folder / PICTURES)
        atomic.move([aside / name for name in makers], folder)
        atomic.remove(aside)
    except FolderError:
        raise
    except OSError as error:
        raise FolderError(f"cannot write to {folder}: {refused(error)}; nothing half-written was left") from None
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):  # the next one that has the lock removes it
                atomic.remove(*atomic.leftovers(folder))
            lock.release()
        if new:
            with contextlib.suppress(OSError):  # something was written
                folder.rmdir()
    return [folder / name for name in (RESULT, *makers, *(f"{PICTURES}/{name}" for name in shown))]


def page(found: Benchmark | Report | RunViews, progress: Progress | None = None, report: Report | None = None) -> str:
    """Makes the page of a benchmark's or a run's results, one HTML file that needs no other; nothing is written.

    Args:
        found: the results of a benchmark, or a run or its report.
        progress: told what happens: a picture takes a moment.
        report: the report of the run whose rows ``found`` has, where it was read as a benchmark; its answer is shown.

    Raises:
        OptionError: results of another kind.
    """
    from merging.benchmarking.rendering.page import to_html

    results, report = _results(found, report)
    progress = progress or Silent()
    drawn = _drawn(results, progress, "drawing the page")
    made = to_html(results, drawn, _own(report))
    progress.advance()
    return made


def write_page(found: RunViews, progress: Progress | None = None) -> Path:
    """Writes the page of a run into its folder, ``report.html``, whole or not at all.

    Args:
        found: the run, with its folder.
        progress: told what happens.

    Raises:
        OptionError: the run has no folder.
        FolderError: the folder cannot be written, or holds another result by now.
    """
    folder = found.folder
    if folder is None:
        raise OptionError("the run was written to no folder; give `output`")
    path, made = folder / PAGE, page(found, progress)
    with atomic.refusals(f"cannot write {path}"):
        lock = Lock(folder)
        try:
            now = Report.from_json(folder)
            if (now.content_hash, now.strategy, now.seed) != (
                found.report.content_hash,
                found.report.strategy,
                found.report.seed,
            ):
                raise FolderError(f"{folder} holds another run by now; its page was not written")
            atomic.write(path, made)
        finally:
            lock.release()
    return path


def _tables(found: Benchmark) -> dict[str, Callable[[], str]]:
    """Files of what stands apart, and of the pools, table by table: name → what makes it."""
    made: dict[str, Callable[[], str]] = {}
    for number, part in enumerate((found, *found.apart), 1):
        if part.singles:
            made[_numbered(POOL, number)] = functools.partial(pool_csv, part)
        if number > 1:
            made[_numbered("benchmark.csv", number)] = functools.partial(to_csv, part)
    return made


def _numbered(name: str, number: int) -> str:
    stem, dot, suffix = name.partition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{suffix}"


def _drawn(found: Benchmark, progress: Progress, stage: str, folder: Path | None = None) -> dict[str, Figure]:
    """Draws all pictures of all tables: name → what the page shows; of what stands apart 2-scatter, 3-scatter, ….

    Args:
        found: the results.
        progress: told of each.
        stage: what this is called there; it has one step more.
        folder: files are written there too, PNG and SVG.
    """
    from merging.benchmarking.rendering.figures import figure  # loads Altair
    from merging.benchmarking.rendering.pictures import drawings

    pictures = {
        f"{number}-{name}" if number > 1 else name: drawing
        for number, part in enumerate((found, *found.apart), 1)
        for name, drawing in drawings(part).items()
    }
    progress.stage(stage, len(pictures) + 1)
    drawn = {}
    for name, drawing in pictures.items():
        png, drawn[name] = figure(drawing, name)
        if folder is not None:
            atomic.put(folder / f"{name}.png", png)
            atomic.put(folder / f"{name}.svg", drawn[name].wide)
        progress.advance()
    return drawn


def _own(report: Report | None) -> VerdictCard | None:
    """The card of a run, which knows more than its rows do."""
    return None if report is None else card_of(report)


def _results(found: Benchmark | Report | RunViews, report: Report | None) -> tuple[Benchmark, Report | None]:
    """The rows to render, and of a run its report.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(found, RunViews):
        return of_run(found.report.to_json(), found.folder), found.report
    if isinstance(found, Report):
        return of_run(found.to_json(), None), found
    if not isinstance(found, Benchmark):
        raise OptionError(f"render was given {kind_of(found)}; it takes a benchmark's results, a run's, or its report")
    return found, report

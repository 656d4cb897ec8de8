"""Everything that a benchmark's folder shows: CSV, Markdown, LaTeX, the HTML page, pictures as PNG and SVG."""

from __future__ import annotations

import contextlib
from pathlib import Path

from merging.benchmarking.folder import DOCUMENTS, PICTURES, POOL, RESULT, withdraw
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
from merging.values.report import Report


def render(
    found: Benchmark | Report | RunViews, folder: Path | str | None = None, progress: Progress | None = None
) -> list[Path]:
    """Writes all forms of a benchmark's or a run's results into a folder; each file whole or not at all.

    Args:
        found: the results of a benchmark, or a run or its report, whose rows are rendered as a benchmark's.
        folder: made where it is not there. Pictures that an earlier rendering has left and this one lacks are removed.
        progress: told what happens.

    Returns:
        The files: ``benchmark.json``, ``pool.csv`` where the models of the pool were scored, ``benchmark.csv``,
        ``.tex``, ``.md``, ``.html``, then the pictures.

    Raises:
        FolderError: the folder cannot be written.
        OptionError: no folder was given, or results of another kind.
    """
    found = _results(found)
    if folder is None:
        raise OptionError("render writes files: give it a folder, as in render(found, 'folder')")
    folder = Path(folder)
    from merging.benchmarking.rendering.figures import Figure, figure  # loads Altair
    from merging.benchmarking.rendering.page import to_html
    from merging.benchmarking.rendering.pictures import drawings

    progress = progress or Silent()
    pictures = drawings(found)
    progress.stage("tables and pictures", len(pictures) + 1)
    lock: Lock | None = None
    try:
        atomic.make_folder(folder)
        lock = Lock(folder)
        aside = atomic.new_folder(folder)
        atomic.make_folder(aside / PICTURES)
        drawn: dict[str, Figure] = {}
        for name, drawing in pictures.items():
            png, drawn[name] = figure(drawing, name)
            atomic.put(aside / PICTURES / f"{name}.png", png)
            atomic.put(aside / PICTURES / f"{name}.svg", drawn[name].wide)
            progress.advance()
        makers = {
            "benchmark.html": lambda: to_html(found, drawn),
            "benchmark.md": lambda: to_markdown(found),
            "benchmark.tex": lambda: to_latex(found),
            "benchmark.csv": lambda: to_csv(found),
            POOL: lambda: pool_csv(found),
        }
        written = [name for name in DOCUMENTS if name != POOL or found.singles]
        atomic.put(aside / RESULT, found.dumps())
        for name in written:
            atomic.put(aside / name, makers[name]())
        atomic.sync_tree(aside)
        progress.advance()
        shown = sorted(path.name for path in (aside / PICTURES).iterdir())
        withdraw(folder)
        atomic.move([aside / RESULT], folder)
        atomic.make_folder(folder / PICTURES)
        atomic.move([aside / PICTURES / name for name in shown], folder / PICTURES)
        atomic.move([aside / name for name in reversed(written)], folder)
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
    return [folder / name for name in (RESULT, *reversed(written), *(f"{PICTURES}/{name}" for name in shown))]


def _results(found: Benchmark | Report | RunViews) -> Benchmark:
    """The rows to render.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(found, RunViews):
        return of_run(found.report.to_json(), found.folder)
    if isinstance(found, Report):
        return of_run(found.to_json(), None)
    if not isinstance(found, Benchmark):
        raise OptionError(f"render was given {kind_of(found)}; it takes a benchmark's results, a run's, or its report")
    return found

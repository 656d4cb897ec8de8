"""Everything that a benchmark's folder shows: CSV, Markdown, LaTeX, the HTML page, pictures as PNG and SVG."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from merging.benchmarking.folder import RESULT
from merging.benchmarking.rendering.documents import to_csv, to_latex, to_markdown
from merging.benchmarking.results import Benchmark
from merging.errors import FolderError
from merging.plugins.progress import Progress, Silent

PICTURES = "pictures"
NAME = "benchmark"
OWN = re.compile(r"(scatter|search|coefficients-.+)\.(png|svg)")
"""Pictures that a rendering makes, and may remove when a later one does not."""


def render(found: Benchmark, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Writes all forms of a benchmark's results into a folder; each file whole or not at all.

    Args:
        found: the results.
        folder: made where it is not there. Pictures that an earlier rendering has left and this one lacks are removed.
        progress: told what happens.

    Returns:
        The files: ``benchmark.json``, ``.csv``, ``.md``, ``.tex``, ``.html``, then the pictures.

    Raises:
        FolderError: the folder cannot be written.
    """
    from merging.benchmarking.rendering.drawing import NARROW, WIDE, draw  # loads matplotlib
    from merging.benchmarking.rendering.page import to_html
    from merging.benchmarking.rendering.pictures import drawings

    progress = progress or Silent()
    pictures = drawings(found)
    progress.stage("tables and pictures", len(pictures) + 1)
    aside = folder / f".rendering-{os.getpid()}"
    try:
        (aside / PICTURES).mkdir(parents=True)
        drawn: dict[str, tuple[bytes, bytes]] = {}
        for name, drawing in pictures.items():
            png, wide = draw(drawing, name, WIDE, "png", "svg")
            (narrow,) = draw(drawing, name, NARROW, "svg")
            drawn[name] = wide, narrow
            (aside / PICTURES / f"{name}.png").write_bytes(png)
            (aside / PICTURES / f"{name}.svg").write_bytes(wide)
            progress.advance()
        texts = {
            RESULT: found.dumps(),
            f"{NAME}.csv": to_csv(found),
            f"{NAME}.md": to_markdown(found),
            f"{NAME}.tex": to_latex(found),
            f"{NAME}.html": to_html(found, drawn),
        }
        for name, text in texts.items():
            (aside / name).write_text(text, encoding="utf-8")
        progress.advance()
        files = [*texts, *(f"{PICTURES}/{path.name}" for path in sorted((aside / PICTURES).iterdir()))]
        (folder / PICTURES).mkdir(exist_ok=True)
        for name in files:
            os.replace(aside / name, folder / name)
        for path in (folder / PICTURES).iterdir():
            if OWN.fullmatch(path.name) and f"{PICTURES}/{path.name}" not in files:
                path.unlink()
    except OSError as error:
        raise FolderError(f"cannot write to {folder}: {error.strerror}; nothing half-written was left") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [folder / name for name in files]

"""The gallery: every committed result as its page, which needs no network, with its answer and a picture."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

from docs.website.pictures import in_page, of_file
from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import title
from merging.benchmarking.rendering.forms import page
from merging.benchmarking.rendering.pictures import drawings
from merging.drawing import NARROW, WIDE, draw
from merging.values.answer import answer as answer_of_run
from merging.values.report import Report

FILES = ("benchmark.json", "report.json")
"""What a folder with a result holds."""


@dataclass(frozen=True)
class Shown:
    """A result in the gallery.

    Attributes:
        title: its heading.
        said: a sentence: what came out.
        link: its page, relative to the gallery.
        pictures: HTML of them, for a desktop and for a phone.
    """

    title: str
    said: str
    link: str
    pictures: str


def folders(docs: Path) -> list[Path]:
    """Every folder below docs/results that holds a benchmark or a run; those of real pools first."""
    found = {path.parent for name in FILES for path in docs.glob(f"results/**/{name}")}
    return sorted(found, key=lambda path: (path.parent.name != "pacs", path))


def page_name(folder: Path, docs: Path) -> str:
    """The file of a result's page, such as ``pacs-bench_0.html``."""
    return f"{'-'.join(folder.relative_to(docs / 'results').parts)}.html"


def make_page(folder: Path) -> str:
    """Draws a result's page, as ``merge report FOLDER`` does, with the way back to the site."""
    of_benchmark = (folder / FILES[0]).is_file()
    made = page(read_folder(folder) if of_benchmark else Report.from_json(folder / FILES[1]))
    return made.replace("<header>", '<header>\n<nav><a href="index.html">Gallery</a></nav>', 1)


def of_folder(folder: Path, docs: Path) -> Shown:
    """Shows a benchmark or a run by its differences from the best single model."""
    results, name = read_folder(folder), page_name(folder, docs)
    run = folder / FILES[1]
    said = answer_of_run(Report.from_json(run)) if run.is_file() else answer(results)
    drawing = next(iter(drawings(results).values()))
    wide, narrow = (
        in_page(draw(drawing, Path(name).stem, size, "svg")[0].decode(), f"{Path(name).stem}-{kind}", title(results))
        for kind, size in (("wide", WIDE), ("narrow", NARROW))
    )
    both = f'<span class="wide">{wide}</span><span class="narrow">{narrow}</span>'
    return Shown(title(results), said.headline, name, both)


def of_document(path: Path) -> Shown | None:
    """Shows a page of docs/results by its first picture; None where it has none."""
    text = path.read_text(encoding="utf-8")
    heading, picture = re.search(r"^# (.+)$", text, re.M), re.search(r"^!\[([^]]*)]\((\S+\.svg)\)", text, re.M)
    if heading is None or picture is None:
        return None
    drawn = of_file(path.parent / picture[2], picture[1])
    return Shown(heading[1], f"{picture[1][:1].upper()}{picture[1][1:]}.", f"../results/{path.stem}.html", drawn or "")


def document(docs: Path) -> str:
    """The gallery's page in reStructuredText."""
    found = [shown for path in sorted(docs.glob("results/*.md"), reverse=True) if (shown := of_document(path))]
    found += [of_folder(folder, docs) for folder in folders(docs)]
    lines = ["Gallery", "=======", ""]
    lines += [
        "Results that stand in the repository. A picture leads to its page: tables, tests, and what was run; the pages"
    ]
    lines += ["of single benchmarks and runs are one file each, as ``merge report DIR --open`` shows it.", ""]
    for shown in found:
        lines += [shown.title, "-" * len(shown.title), "", ".. raw:: html", ""]
        lines += [f"   <p>{html.escape(shown.said)}</p>"]
        lines += [f'   <p><a class="shown" href="{html.escape(shown.link)}">{shown.pictures}</a></p>', ""]
    return "\n".join(lines)

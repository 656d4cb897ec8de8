"""The page of results: parts between markers that the committed records decide, and pictures beside it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.soups import exploratory, per_pool, tables
from benchmarks.soups.coefficients import coefficients
from benchmarks.soups.figures import Drawn, drawn
from benchmarks.soups.pools import Pools, Refused, gathered, studies
from merging.values.markdown import plain

MARK = re.compile(r"^<!-- ([\w-]+) -->$", re.MULTILINE)
END = "end"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
PARTS: Mapping[str, Callable[[Pools], str]] = {
    "confirmation": tables.confirmation,
    "replication": tables.replication,
    "further": tables.further,
    "pools": per_pool.figures,
    "costs": per_pool.costs,
    "coefficients": coefficients,
    "optimism": exploratory.optimism,
    "edits": exploratory.edits,
    "others": exploratory.others,
}
NAMES = ("missing", *PARTS, "studies")
"""Of the page's parts; each is there once."""


@dataclass(frozen=True)
class Made:
    """What the records say the page is.

    Attributes:
        page: its text.
        pictures: the files beside it.
        notes: what is missing.
    """

    page: str
    pictures: tuple[Drawn, ...]
    notes: tuple[str, ...]


def made(results: Path = RESULTS) -> Made:
    """Makes the page of a folder that has soups.md, protocol.md and the records in soups/.

    Raises:
        Refused: the page lacks a part, or a file is no record.
    """
    page = results / "soups.md"
    if not page.is_file():
        raise Refused(
            f"there is no {page}; write it with the parts {', '.join(NAMES)}, each <!-- NAME --> … <!-- end -->"
        )
    pools = gathered(results / "soups", results / "protocol.md")
    pictures = drawn(pools)
    notes = pools.notes()
    texts = {name: part(pools) for name, part in PARTS.items()}
    texts["missing"] = "\n".join(f"- {note}" for note in notes) or "Every planned pool and method is there."
    texts["studies"] = exploratory.studied(studies(results / "soups" / "studies"))
    for each in pictures:
        texts[each.part] = illustrated(texts[each.part], each)
    return Made(filled(page.read_text("utf-8"), texts, page), tuple(pictures), tuple(notes))


def illustrated(text: str, picture: Drawn) -> str:
    """Puts a picture into its family's section, above what is folded; where there is no section, at the end."""
    heading = f"### {plain(picture.family)}\n"
    begin = text.find(heading)
    after = text.find("\n\n### ", begin + 1) if begin >= 0 else -1
    end = after if after >= 0 else len(text)
    folds = text.find("\n\n<details>", begin, end) if begin >= 0 else -1
    at = folds if folds >= 0 else end
    return f"{text[:at]}\n\n![{plain(picture.about)}](soups/{picture.file}){text[at:]}"


def filled(text: str, parts: Mapping[str, str], page: Path) -> str:
    """Puts parts between their markers.

    Args:
        text: the page.
        parts: name → text.
        page: where the page is, for messages.

    Raises:
        Refused: a marker is unknown, missing, there twice or without its end.
    """
    marks = [(found[1], found) for found in MARK.finditer(text)]
    pieces, at, opened = [], 0, ""
    seen: set[str] = set()
    for name, found in marks:
        where = f"{page}, line {text.count(chr(10), 0, found.start()) + 1}"
        if name == END:
            if not opened:
                raise Refused(f"{where}: <!-- end --> ends no part")
            pieces.append(parts[opened].strip("\n") + "\n")
            at, opened = found.start(), ""
            continue
        if opened:
            raise Refused(f"{where}: <!-- {name} --> begins before <!-- end --> of {opened}")
        if name not in parts:
            near = difflib.get_close_matches(name, parts, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise Refused(f"{where}: no part is called {name}; {meant}parts are {', '.join(parts)}")
        if name in seen:
            raise Refused(f"{where}: the part {name} is there twice")
        seen.add(name)
        pieces.append(text[at : found.end()] + "\n")
        opened = name
    if opened:
        raise Refused(f"{page}: the part {opened} has no <!-- end -->")
    if lacking := [name for name in parts if name not in seen]:
        raise Refused(
            f"{page} lacks the part {lacking[0]}: put <!-- {lacking[0]} --> and <!-- end --> where it belongs"
        )
    return "".join([*pieces, text[at:]])


def stale(result: Made, results: Path = RESULTS) -> list[str]:
    """Which files are not what the records say: the page, and pictures that were drawn from other records."""
    page = results / "soups.md"
    found = [str(page)] if page.read_text("utf-8") != result.page else []
    for each in result.pictures:
        file = results / "soups" / each.file
        if not file.is_file() or not file.read_text("utf-8").endswith(each.source):
            found.append(str(file))
    return found


def write(result: Made, results: Path = RESULTS) -> list[Path]:
    """Writes the page and its pictures, and gives those that are other than they were."""
    folder, page = results / "soups", results / "soups.md"
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / each.file: each.svg() for each in result.pictures} | {page: result.page.encode()}
    written = [file for file, content in files.items() if not file.is_file() or file.read_bytes() != content]
    for file in written:
        file.write_bytes(files[file])
    return written


@click.command("tables")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where the page is not what the records say.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of soups.md, protocol.md and soups/."
)
def remade(check: bool, results: Path) -> None:
    """Make docs/results/soups.md's tables and pictures of the committed records, and say what is missing."""
    found = made(results)
    for note in found.notes:
        click.echo(note.replace("**", ""))
    if check:
        if outdated := stale(found, results):
            click.echo(f"not what the records say: {', '.join(outdated)}; python -m benchmarks.soups tables", err=True)
            raise SystemExit(1)
        return
    for file in write(found, results):
        click.echo(f"wrote {file}")

"""``merge convert``: a configuration of mergekit as the merge.toml that does the same, to go on from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import shared
from merging.errors import FolderError, MergingError, showable

if TYPE_CHECKING:
    from merging.mergekit.translation import Translation

WIDTH = 100
"""Characters of a line, beyond which a list has a line an entry."""


@click.command("convert")
@click.argument("config")
@click.option("--output", metavar="FILE", help="Write it there, such as merge.toml.  [default: print it]")
@shared("as_json")
def command(config: str, output: str | None, as_json: bool) -> None:
    """Write the merge.toml that does what a configuration of mergekit does: merge convert config.yml.

    CONFIG is a file for mergekit-yaml. Its models are opened, of those of the Hub the small files and headers; nothing
    is merged. merge run CONFIG merges without this step. No file is overwritten.
    """
    from merging.cli.showing.screen import Screen, marked, print_json
    from merging.mergekit.translation import translation
    from merging.storage import atomic
    from merging.storage.folder import check_parent

    path = None if output is None else Path(output).expanduser()
    if path is not None:
        check_parent(path, f"--output {output}")
        if path.exists() or path.is_symlink():
            raise FolderError(f"{path} exists and is not overwritten; choose another --output")
        if path.suffix != ".toml":
            raise MergingError(f"--output {output}: the name ends with .toml")
    meant = translation(Path(config))
    for note in meant.notes:
        click.echo(showable(f"{config}: {note}"), err=True)
    tables = _tables(meant, (path or Path("merge.toml")).absolute().parent)
    text = written(meant, tables, path or Path("merge.toml"))
    if path is not None:
        with atomic.refusals(f"cannot write {path}"):
            atomic.write(path, text)
    if as_json:
        print_json(
            {
                "method": meant.method,
                "file": None if path is None else str(path),
                "tables": tables,
                "notes": list(meant.notes),
            }
        )
    elif path is None:
        click.echo(showable(text, keep="\n"), nl=False)
    else:
        Screen().print(
            marked("Written: [bold]{}[/]. Merge with: {}", path, _run(path)), highlight=False, soft_wrap=True
        )


def written(meant: Translation, tables: Mapping[str, Any], path: Path) -> str:
    """The text of the merge.toml.

    Args:
        meant: what it says.
        tables: the same as tables, with the paths as they are to be written.
        path: the file that it is written to.
    """
    said = f"# Written by merge convert from {meant.file}, which has mergekit's '{meant.method}'."
    parts = [
        showable(said).encode("utf-8", "backslashreplace").decode() + "\n",
        f"# The same merge: {showable(_run(path))}\n",
        "# With a [task] its result is scored, and tested against the models and their averages.\n",
        "\n[pool]\n",
        *_lines(tables["pool"]),
        "\n[run]\n",
        *_lines({key: value for key, value in tables["run"].items() if key != "options"}),
    ]
    for kind, options in tables["run"]["options"].items():
        parts += [f"\n[run.options.{kind}]\n", *_lines(options)]
    return "".join(parts)


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    from merging.looking.guessing.proposal import toml

    for key, value in table.items():
        text = toml(value)
        if isinstance(value, list) and len(text) > WIDTH:
            text = "[\n" + "".join(f"    {toml(each)},\n" for each in value) + "]"
        yield f"{key if re.fullmatch('[A-Za-z0-9_-]+', key) else toml(key)} = {text}\n"


def _run(path: Path) -> str:
    """The command that merges by the file."""
    import shlex

    from merging.cli.asking.tables import TOML

    return "merge run" if str(path) == TOML else f"merge run --task {shlex.quote(str(path))}"


def _tables(meant: Translation, at: Path) -> dict[str, Any]:
    """The tables, with paths as they are seen from a folder; those that lead far up stay absolute."""
    from merging.storage.hub.spelling import PREFIX

    def seen(place: str) -> str:
        if place.startswith(PREFIX):
            return place
        short = os.path.relpath(place, at)
        return place if short.startswith(os.path.join("..", "..")) else short

    pool = meant.tables["pool"]
    base = {"base": seen(pool["base"])} if "base" in pool else {}
    return {"pool": {"models": [seen(place) for place in pool["models"]], **base}, "run": meant.tables["run"]}

"""Whether docs/why.md is true of other projects' files, and its tables: ``python -m benchmarks.peers FOLDER``.

FOLDER holds a clone of each project and the unpacked wheel of mergekit, under the names that docs/why.json gives as
``folder``; a clone needs the commit that is named there, nothing is checked out. ``--write`` writes the page's tables.
A cell rests on files: one that ``has`` a text, or files (``*`` stands for folders as well) of which none ``lacks``
what a regular expression finds, whose ``lines`` it finds ``count`` times or ``at_least`` so often, or which lie in as
many ``folders``. Cells of this project are checked by tests/project/test_why.py, without any clone.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
FACTS = ROOT / "docs" / "why.json"
PAGE = ROOT / "docs" / "why.md"
OURS = "merging"


@dataclass(frozen=True)
class Files:
    """A project's files: as they lie in a folder, or those of a commit of the clone that lies there."""

    root: Path
    commit: str | None = None

    def names(self, pattern: str) -> list[str]:
        """Names of the files that a pattern fits."""
        if self.commit is not None:
            listed = self._git("ls-tree", "-r", "--name-only", self.commit).splitlines()
        else:
            start = self.root / pattern.partition("*")[0].rpartition("/")[0]
            found = (path for path in start.rglob("*") if path.is_file() and ".venv" not in path.parts)
            listed = [path.relative_to(self.root).as_posix() for path in found]
        return [name for name in listed if fnmatchcase(name, pattern)]

    def text(self, name: str) -> str:
        """Text of one of them."""
        if self.commit is not None:
            return self._git("show", f"{self.commit}:{name}")
        return (self.root / name).read_text(encoding="utf-8")

    def _git(self, *words: str) -> str:
        command = ["git", "-C", str(self.root), *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout  # noqa: S603


def fault(rest: Mapping[str, Any], files: Files) -> str | None:
    """What is wrong with something that a cell rests on, or nothing."""
    names = files.names(rest["in"])
    if not names:
        return "no such file"
    if "has" in rest:
        return None if rest["has"] in files.text(names[0]) else f"{rest['has']!r} is not in it"
    if "folders" in rest:
        depth = rest["in"].partition("*")[0].count("/")
        number = len({name.split("/")[depth] for name in names})
        return None if number == rest["folders"] else f"{number} folders"
    pattern = re.compile(rest.get("lacks", rest.get("lines")))
    found = [(name, line) for name in names for line in files.text(name).splitlines() if pattern.search(line)]
    if "lacks" in rest:
        return f"{found[0][0]} has {found[0][1].strip()!r}" if found else None
    right = len(found) >= rest["at_least"] if "at_least" in rest else len(found) == rest["count"]
    return None if right else f"{len(found)} lines"


def rests(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Everything that cells rest on: the cell's name, the source's, and what is to be found there."""
    for point in facts["points"]:
        for project, cell in point["cells"].items():
            for rest in cell["rests"]:
                yield f"{point['point']}, {project}", cell.get("source", project), rest


def faults(facts: Mapping[str, Any], sources: Mapping[str, Files]) -> list[str]:
    """Everything that is wrong with the cells that rest on these sources."""
    checked = [(cell, rest, fault(rest, sources[name])) for cell, name, rest in rests(facts) if name in sources]
    return [f"{cell}: {rest['in']}: {said}" for cell, rest, said in checked if said is not None]


def tables(facts: Mapping[str, Any]) -> dict[str, str]:
    """The page's generated parts, by their marks: the points, and which files they rest on."""
    points = facts["points"]
    projects = [*points[0]["cells"]]
    rows = [["", *(f"**{project}**" for project in projects)], ["---"] * (len(projects) + 1)]
    rows += [[f"**{point['point']}**", *(cell["says"] for cell in point["cells"].values())] for point in points]
    lines = []
    for source in facts["sources"].values():
        version = f", commit `{source['commit'][:7]}` of {source['of']}" if "commit" in source else ""
        lines.append(f"- {source['says']}{version}")
    lines.append("")
    for point in points:
        said = []
        for project, cell in point["cells"].items():
            names = dict.fromkeys(rest["in"] for rest in cell["rests"])
            said.append(f"{project} " + ", ".join(f"`{name}`" for name in names))
        lines.append(f"- **{point['point']}**: " + "; ".join(said))
    return {
        "points": "".join(f"| {' | '.join(row)} |\n" for row in rows),
        "files": "".join(f"{line}\n" for line in lines),
    }


def written(page: str, facts: Mapping[str, Any]) -> str:
    """The page with its generated parts made anew."""
    for mark, text in tables(facts).items():
        head, _, rest = page.partition(f"<!-- {mark} -->\n")
        page = f"{head}<!-- {mark} -->\n{text}<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return page


def read() -> dict[str, Any]:
    """What docs/why.json says."""
    facts: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    return facts


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--write", is_flag=True, help="Write the tables of docs/why.md.")
def main(folder: Path | None, write: bool) -> None:
    """Checks docs/why.json against this repository, and against the sources in FOLDER."""
    facts = read()
    if write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), facts), encoding="utf-8")
    sources = {OURS: Files(ROOT)}
    for name, source in facts["sources"].items():
        if folder is not None and "folder" in source:
            sources[name] = Files(folder / source["folder"], source.get("commit"))
    wrong = faults(facts, sources)
    for line in wrong:
        click.echo(line)
    number = sum(name in sources for _, name, _ in rests(facts))
    click.echo(f"{number} facts of {len(sources)} sources, {len(wrong)} wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

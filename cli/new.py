"""``merge new``: a plug-in that works, with its test, to be made into one's own."""

from __future__ import annotations

import importlib.machinery
import keyword
import re
import shlex
import string
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import click

from merging.cli.asking.options import shared
from merging.errors import FolderError, MergingError, unknown


class Blank(NamedTuple):
    """The facts that a kind of blank has beside its text.

    ``contract`` is the class of its tests, ``used`` how a command names one, with $-marks.
    """

    contract: str
    used: str


BLANKS = {
    "strategy": Blank("StrategyContract", "merge run --plugin $file --strategy $name"),
    "partitioner": Blank("PartitionerContract", "merge run --plugin $file --partitioner $name"),
    "optimizer": Blank("OptimizerContract", "merge run --plugin $file --optimizer $name"),
    "objective": Blank("ObjectiveContract", "merge run --plugin $file --objective $name"),
    "regime": Blank("RegimeContract", "merge finetune --plugin $file --regime $name --output pool"),
    "task": Blank("TaskContract", "merge run --plugin $file --task $name --models 'checkpoints/*.pth'"),
    "model": Blank("ModelSourceContract", 'model = "$name:small" in [task] of a merge.toml; --plugin $file'),
    "form": Blank("DataFormContract", 'held_out = "set.$module" in [task] of a merge.toml; --plugin $file'),
    "sink": Blank("SinkContract", "merge run --plugin $file --sink $name"),
}
"""Kind of plug-in → what its blank needs."""
INSTANCES = ("strategy", "partitioner", "optimizer", "objective", "regime", "form", "sink")
"""Kinds whose contract takes an instance; the others' takes what is registered."""
LONGEST = 40
"""Characters that a name has at most."""


@click.command("new")
@click.argument("kind")
@click.argument("name")
@click.option("--output", metavar="DIR", default=".", help="Folder for the two files.  [default: the working folder]")
@shared("as_json")
def command(kind: str, name: str, output: str, as_json: bool) -> None:
    """Write a plug-in of a KIND under a NAME, and its test: merge new strategy top-k.

    KIND is strategy, partitioner, optimizer, objective, regime, task, model, form or sink. What is written works,
    passes its contract, and says where to make it yours. No file is overwritten.
    """
    from merging.cli.showing.screen import Screen, marked, print_json
    from merging.plugins.user_code import article
    from merging.storage import atomic
    from merging.storage.folder import check_place

    if kind not in BLANKS:
        raise unknown("kind of plug-in", kind, BLANKS)
    module = _module(kind, name)
    folder = Path(output).expanduser()
    check_place(folder)
    texts = {folder / file: text for file, text in written(kind, name, module).items()}
    for path in texts:
        if path.exists() or path.is_symlink():
            raise FolderError(f"{path} exists and is not overwritten; choose another name, or another --output")
    with atomic.refusals(f"cannot write to {folder}"):
        atomic.make_folder(folder)
        for path, text in texts.items():
            atomic.write(path, text)
    file, test = texts
    typed = shlex.quote(str(file))
    used = string.Template(BLANKS[kind].used).substitute(file=typed, name=name, module=module)
    hints = {"test it": f"pytest {shlex.quote(str(test))}", "describe it": f"merge describe {name} --plugin {typed}"}
    hints["use it"] = used
    if as_json:
        print_json({"kind": kind, "name": name, "files": [str(path) for path in texts], "next": hints})
        return
    console = Screen()
    console.print(marked("[bold]{}[/] is {} that works, with its contract in {}.", file, article(kind), test))
    for what, hint in hints.items():
        console.print(marked("  {} {}", what.ljust(12), hint), highlight=False, soft_wrap=True)


def written(kind: str, name: str, module: str) -> dict[str, str]:
    """File name → text of a new plug-in, and of its test.

    Args:
        kind: one of :data:`BLANKS`.
        name: the name that it is registered under.
        module: name of its file, without the suffix.
    """
    # A class called as the interface is would hide what it derives from; a function may be called as its file is.
    cls = "".join(part.capitalize() for part in module.split("_"))
    function = f"{module}_task" if module in ("network", "points") else module
    defined = function if kind == "task" else cls
    instance = kind in INSTANCES
    marks: dict[str, Any] = {"name": name, "module": module, "cls": cls, "function": function, "kind": kind}
    marks |= {"contract": BLANKS[kind].contract, "defined": defined}
    marks |= {"made": f"{cls}()" if instance else defined, "type": cls if instance else "object"}
    return {f"{module}.py": _filled(kind, marks), f"test_{module}.py": _filled("test", marks)}


def _filled(blank: str, marks: Mapping[str, Any]) -> str:
    text = resources.files("merging.cli").joinpath("blanks", f"{blank}.txt").read_text("utf-8")
    return string.Template(text).substitute(marks)


def _module(kind: str, name: str) -> str:
    """The name of the file for a plug-in's name: ``top_k`` for ``top-k``.

    Raises:
        MergingError: it is taken, odd, or would hide a module that somebody may import.
    """
    from merging.plugins.discovery import load_kind
    from merging.plugins.registry import PLUGINS

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        near = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")
        near = (f"my-{near}" if near[:1].isdigit() else near)[:LONGEST].strip("-") or "top-k"
        raise MergingError(
            f"'{name}' is no name for a new plug-in; '{near}' would be one: a lower-case letter, then such letters, "
            f"digits and single hyphens, at most {LONGEST} characters"
        )
    load_kind(kind)
    if name in PLUGINS[kind]:
        raise MergingError(f"there is a {kind} '{name}' already; choose another name (see: merge describe {name})")
    module = name.replace("-", "_")
    if module == "conftest" or module.startswith("test_"):
        raise MergingError(f"pytest would take {module}.py for its own; choose another name, such as my-{name}")
    if keyword.iskeyword(module) or _importable(module):
        raise MergingError(f"{module}.py would hide the module {module}; choose another name, such as my-{name}")
    return module


def _importable(module: str) -> bool:
    """Whether a module of that name is installed; one that is only loaded, or lies in the working folder, is not."""
    if module in sys.stdlib_module_names:
        return True
    found = importlib.machinery.PathFinder.find_spec(module)
    place = None if found is None else found.origin
    return found is not None and (place is None or Path(place).parent != Path.cwd())

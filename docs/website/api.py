"""The API's pages: a page a wing of the public names, as ``merging/__init__.pyi`` lists them, and nothing else."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import merging

TITLES = {
    "running": "Merge, and come back to it",
    "benchmarking": "Benchmarks",
    "looking": "Look and score",
    "harness": "lm-eval",
    "strategies": "Strategies",
    "partitioners": "Partitioners",
    "optimizers": "Optimizers",
    "objectives": "Objectives",
    "sinks": "Sinks",
    "tasks": "Tasks",
    "data": "Data",
    "models": "Models",
    "storage": "Checkpoints and pools",
    "training": "Fine-tuning",
    "mixing": "Numbers that vary",
    "plugins": "Interfaces of plug-ins",
    "values": "Values",
    "errors": "Errors",
}
"""Wings in the order of the pages, with their titles; one that is missing comes last, under its own name."""
ABOUT = {
    "running": "Merges models, tests the result against the best single one, and opens runs that are on the disk.",
    "benchmarking": "Runs many methods over one pool, and reads, compares and writes what came of it.",
    "looking": "Looks at a pool before a merge and at scores after it: checks, geometry, ranking.",
    "harness": "Runs lm-eval's tasks on models, and compares its results in pairs.",
    "strategies": "How models become one. A strategy is made with its options, and given to :py:obj:`~merging.merge`.",
    "partitioners": "How a model is divided into components, each of which has coefficients of its own.",
    "optimizers": "How coefficients are searched for, where a strategy asks for an optimizer.",
    "objectives": "What a search makes better: a score of outputs on held-out data.",
    "sinks": "Where the events of a run go as they happen.",
    "tasks": "What models are scored on: held-out data, test sets, and the model that the weights belong to.",
    "data": "Samples in memory, and the forms in which they are read from files.",
    "models": "Which network the weights belong to, and how it sees its data.",
    "storage": "Checkpoints, pools of them, and the files that they are written to.",
    "training": "Makes a pool: one model, fine-tuned many times.",
    "mixing": "Numbers of a method that vary with the depth, part or tensor of a model.",
    "plugins": "What plug-ins of your own are made of, and how they are registered.",
    "values": "What the rest returns: frozen values, such as recipes, reports and verdicts.",
    "errors": "What is raised where something cannot be done, with what would help.",
}
"""What each page says first: its wing in one sentence."""
_LINE = re.compile(r"from \.(?P<wing>\w+)(?P<rest>[\w.]*) import (?P<name>\w+) as ")


def public() -> dict[str, dict[str, str]]:
    """Reads the public table: wing → names and their modules, functions first."""
    text = Path(merging.__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {wing: {} for wing in TITLES}
    for line in _LINE.finditer(text):
        home = f"merging.{line['wing']}{line['rest']}"
        found.setdefault(line["wing"], {})[line["name"]] = home
    return {wing: dict(sorted(names.items(), key=_functions_first)) for wing, names in found.items() if names}


def _functions_first(name: tuple[str, str]) -> tuple[bool, bool]:
    """The order on a page; ``merge`` is what people look for."""
    return name[0] != "merge", not inspect.isroutine(getattr(merging, name[0]))


def pages() -> dict[str, str]:
    """Makes the pages in reStructuredText, for autodoc: path below docs/ → text."""
    wings = public()
    made = {f"api/{wing}.rst": _page(wing, list(names)) for wing, names in wings.items()}
    return {"api/index.rst": _index(wings)} | made


def _index(wings: dict[str, dict[str, str]]) -> str:
    lines = [
        *_titled("Public names", "="),
        "Everything that ``import merging`` gives; :doc:`/python-api` tells how it is used. What stands elsewhere in",
        "the package may move in any release.",
        "",
    ]
    for wing, names in wings.items():
        lines += [*_titled(f":doc:`{wing}`", "-"), ".. list-table::", "   :widths: 30 70", ""]
        for name in names:
            lines += [f"   * - :py:obj:`~merging.{name}`", f"     - {_summary(getattr(merging, name))}"]
        lines.append("")
    return "\n".join([*lines, ".. toctree::", "   :hidden:", "", *(f"   {wing}" for wing in wings), ""])


def _page(wing: str, names: list[str]) -> str:
    lines = [*_titled(TITLES.get(wing, wing), "="), ABOUT.get(wing, ""), ""]
    for name in names:
        found = getattr(merging, name)
        if inspect.isroutine(found):
            lines += [f".. autofunction:: merging.{name}", ""]
        elif _is_ours(found):
            fields = [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
            lines += [f".. autoclass:: merging.{name}", "   :members:"]
            lines += ["   :show-inheritance:"] * (found.__bases__ != (object,))
            lines += [f"   :exclude-members: {', '.join(fields)}", ""]  # the class says what they are
        else:
            lines += [f".. py:data:: merging.{name}", "", f"   ``{found!r}``", ""]
    return "\n".join(lines)


def _is_ours(found: object) -> bool:
    """A class of this package, and no alias of another one's."""
    return isinstance(found, type) and found.__module__.startswith("merging.")


def _titled(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _summary(found: object) -> str:
    if not (inspect.isroutine(found) or _is_ours(found)):
        return f"``{found!r}``"
    return (inspect.getdoc(found) or "").partition("\n\n")[0].replace("\n", " ")

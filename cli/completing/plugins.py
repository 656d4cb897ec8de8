"""Plug-ins as candidates: names with summaries, options with their values; torch is not needed.

Files of ``--plugin`` are read and not run: nobody has asked for their code yet.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from merging.plugins.discovery import load_kind
from merging.plugins.registry import PLUGINS

KINDS = tuple(PLUGINS)
CALLS = ("option", "varying_option")
"""Functions that declare a field."""


@dataclass(frozen=True)
class Said:
    """An option as it completes: its line of help, and the values that it may have, where these can be listed."""

    help: str
    values: tuple[str, ...]


def summaries(kind: str, files: Iterable[str] = ()) -> dict[str, str]:
    """Name → summary of the plug-ins of a kind, with those that these files register."""
    load_kind(kind)
    found = {name: str(PLUGINS[kind][name].summary) for name in PLUGINS[kind]}
    for name, definition in _registered(kind, files):
        found[name] = _summary(definition)
    return dict(sorted(found.items()))


def options(kind: str, name: str, files: Iterable[str] = ()) -> dict[str, Said]:
    """Option → what it declares, of one plug-in; none where there is no such plug-in."""
    from merging.plugins.options import options_of

    load_kind(kind)
    registry = PLUGINS[kind]
    if name not in registry:
        return {
            option: said
            for other, definition in _registered(kind, files)
            if other == name
            for option, said in _fields(definition)
            if option != "profile" or name not in _profiles(definition)
        }
    found = {}
    for declared in options_of(registry[name]):
        values = declared.spec.choices
        if declared.plugin is not None:
            values = ("none", *summaries("strategy"))
        elif declared.type is bool:
            values = ("true", "false")
        elif not values and isinstance(declared.default, int | float | str):
            values = (str(declared.default),)
        if declared.spec.varies is not None:
            values = (*values, "search", *(("ramp:",) if declared.spec.varies != "whole" else ()))
        found[declared.name] = Said(declared.spec.help, tuple(values))
    return found


def chosen(kind: str, ctx: click.Context) -> str:
    """The plug-in of a kind that the command would take: typed, of the merge.toml, or by default."""
    from merging.cli.asking.request import CHOSEN
    from merging.plugins.strategy import own_optimizer, own_partitioner

    said = ctx.params.get(kind)
    if not said:
        file = _file(ctx)
        said = file.run.model_dump().get(kind) if file is not None else None
    if not said and kind in ("optimizer", "partitioner"):
        load_kind("strategy")
        strategy = chosen("strategy", ctx)
        made = PLUGINS["strategy"][strategy]() if strategy in PLUGINS["strategy"] else None
        own = own_optimizer if kind == "optimizer" else own_partitioner
        said = own(made) if made is not None else None
    return str(said or {**CHOSEN, "objective": "accuracy"}.get(kind, "independent"))


def sets(ctx: click.Context) -> list[str]:
    """Names of the sets that the command's task has, as far as text tells."""
    for name in (ctx.params.get("model"), ctx.params.get("other"), *(ctx.params.get("positional") or ())):
        report = Path(str(name)) / "report.json"
        if name and report.is_file():
            return list(json.loads(report.read_bytes())["samples"])
    file, task = _file(ctx), ctx.params.get("task")
    if file is not None and (task is None or task.endswith(".toml")):
        table = file.task
        if table.name is None:
            told = {"held-out": table.held_out, "test": table.test, **table.shifts}
            return [name for name, there in told.items() if there is not None]
        task = table.name
    load_kind("task")
    registry = PLUGINS["task"]
    return list(getattr(registry[str(task)], "sets", ())) if task in registry else []


def _file(ctx: click.Context) -> Any:
    """The merge.toml that the command would read; None where there is none, or it is damaged."""
    from merging.cli.asking.tables import find
    from merging.errors import MergingError

    try:
        found = find(ctx.params.get("task"))
    except (MergingError, OSError):
        return None
    return None if found is None else found.file


def _registered(kind: str, files: Iterable[str]) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """What files register for a kind with ``@strategies.register("…")``: names and definitions, from their text."""
    group = PLUGINS[kind].group.rpartition(".")[2]
    for file in files:
        try:
            tree = ast.parse(Path(file).expanduser().read_bytes())
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            for call in filter(_is_call, node.decorator_list):
                written = ast.unparse(call.func).split(".")  # type: ignore[attr-defined]
                first = next(iter(call.args), None)  # type: ignore[attr-defined]
                if written[-2:] == [group, "register"] and isinstance(first, ast.Constant):
                    yield from ((name, node) for name in (str(first.value), *_profiles(node)))


def _profiles(definition: ast.ClassDef | ast.FunctionDef) -> tuple[str, ...]:
    """The names of a class's profiles: keys of the mapping that is its ``named_profiles``."""
    for node in definition.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _names(targets) == ["named_profiles"]:
                return tuple(filter(None, map(_constant, node.value.keys)))
    return ()


def _names(targets: list[ast.expr]) -> list[str]:
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_call(node: ast.expr) -> bool:
    return isinstance(node, ast.Call)


def _summary(definition: ast.ClassDef | ast.FunctionDef) -> str:
    for node in definition.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and _names(node.targets) == ["summary"]
        ):
            return str(node.value.value)
    return (ast.get_docstring(definition) or "").partition("\n")[0]


def _fields(definition: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, Said]]:
    """The options of a class: fields whose value is a call of ``option``."""
    for node in definition.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).split(".")[-1] in CALLS:
            default, help_ = [_constant(argument) for argument in (*node.value.args, None, None)][:2]
            yield node.target.id, Said(help_, (default,) if default else ())


def _constant(node: ast.expr | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""

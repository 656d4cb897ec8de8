"""A run that goes on is the same run: what is typed beside ``--resume`` must be what its journal holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from merging.cli.asking.request import check_trust, combine, restore
from merging.cli.asking.tables import read_toml
from merging.errors import CheckpointError, FolderError, MergingError
from merging.plugins.registry import KINDS
from merging.running.settings import DECLARED
from merging.storage.hub.fetching import commit_of
from merging.storage.hub.spelling import PREFIX, HubId, as_id
from merging.values.wording import beginning

COSTS = tuple(name for name, declared in DECLARED.items() if declared.setting.changes)
"""Settings that may change when a run is resumed: how long it goes on, how it saves and writes, not where it goes."""
FREE = ("resume", "trust_code", "dry_run", "as_json", "fail_unless", "page", "open_page", *COSTS)
KEPT = (*COSTS, "threads", "page")
"""Settings that are taken from the command line; of threads the number that the run had, where the rule gives another
now; whether there is a page."""
_TYPED = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def resumed(flags: Mapping[str, Any], context: click.Context) -> dict[str, Any]:
    """Restores the request of the run in the folder ``flags["resume"]``, with what may change taken from the flags.

    Args:
        flags: parameters of ``merge run`` by name.
        context: the command's context, which knows what was typed, whatever the value is.

    Raises:
        FolderError: something else than then was typed, or there is no such run.
        MergingError: a second folder, or code that nobody has allowed to run.
    """
    from merging.storage.journal import FILE, read_header

    folder = Path(flags["resume"])
    header = read_header(folder / FILE)
    kept = restore(header.get("request"), folder)
    check_trust(kept, str(folder), trusted=flags["trust_code"])
    typed = {option.name: option for option in _options_of(context) if _was_typed(option, context)}
    if "output" in typed or "overwrite" in typed:
        raise MergingError("--resume names the folder; leave --output and --overwrite out")
    given = {str(name): flags[str(name)] for name in typed}
    changed = [
        _said(typed[name], part, old, new) for name, part, old, new in _compared(given, kept, header) if old != new
    ]
    if changed:
        what = "; ".join(dict.fromkeys(changed))
        raise FolderError(f"{folder} cannot be resumed: {what}; leave that out to go on, or start a new run for it")
    return kept | {name: given[name] for name in KEPT if name in given} | {"output": str(folder)}


def _options_of(context: click.Context) -> list[click.Parameter]:
    """The options; models that stand alone have been added to ``--models``."""
    return [option for option in context.command.params if isinstance(option, click.Option)]


def _was_typed(option: click.Parameter, context: click.Context) -> bool:
    return option.name is not None and context.get_parameter_source(option.name) in _TYPED


def _compared(
    given: Mapping[str, Any], kept: Mapping[str, Any], header: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Each thing that was typed: its flag, which of several it is, what it was then, what it is now."""
    again = combine(given, None)
    for name, value in given.items():
        if name in FREE:
            continue
        if name == "options":
            yield from _options(again["options"], kept, header)
        elif name == "key":
            yield from ((name, "", model[1], value or "") for model in map(_divided, _models(kept)))
        elif name == "models":
            named = _paths(kept["models"])
            yield name, "", named, _as_then(_paths(again["models"]), named)
        elif name == "base":
            named = _paths([kept["base"]])
            yield name, "", named, _as_then(_paths([again["base"]]), named)
        elif name == "task" and value.endswith(".toml"):
            path = Path(value)
            yield name, "", kept["task"], combine({}, read_toml(path), path.parent)["task"]
        elif name == "freeze":
            yield name, "", kept["freeze"], list(value)
        elif name == "plugin":  # merge.toml's come first
            yield name, "", kept["plugin"][-len(value) :], again["plugin"]
        else:
            then = kept.get(name)
            chosen = _of(header, name).get("name") if name in KINDS else None
            if name in DECLARED:
                chosen = DECLARED[name].default
            if name == "threads":  # by rule; OMP_NUM_THREADS or a container may grant another number now
                chosen = _of(header, "numerics").get("threads")
            yield name, "", chosen if then is None and value == chosen else then, value


def _options(
    now: Mapping[str, Mapping[str, Any]], kept: Mapping[str, Any], header: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Options of plug-ins, one by one; those left at their defaults are in the journal's header."""
    for kind, options in now.items():
        then = {**_of(header, kind).get("options", {}), **kept["options"].get(kind, {})}
        for name, value in options.items():
            old = then.get(name)
            yield "options", f"{kind}.{name}", old, old if _alike(old, value) else value


def _of(header: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found = header.get(kind)
    return found if isinstance(found, Mapping) else {}


def _alike(old: Any, new: Any) -> bool:
    """Whether text from the command line says the same as a value of merge.toml or a default does."""
    if isinstance(old, list) or isinstance(new, list):
        mine, other = (value if isinstance(value, list) else [value] for value in (old, new))
        return len(mine) == len(other) and all(map(_alike, mine, other))
    one, two = str(old).lower(), str(new).lower()
    try:
        return one == two or (not isinstance(old, bool) and float(one) == float(two))
    except ValueError:
        return False


def _models(kept: Mapping[str, Any]) -> list[Any]:
    return [*kept["models"], *([kept["base"]] if kept["base"] else [])]


def _divided(model: str | Mapping[str, str]) -> tuple[str, str]:
    return (model, "") if isinstance(model, str) else (model["path"], model.get("key", ""))


def _paths(models: list[Any]) -> list[str]:
    """Without the keys, which are a flag of their own."""
    return [_divided(model)[0] for model in models if model]


def _as_then(now: list[str], then: list[str]) -> list[str]:
    """Paths and ids; one of the Hub is the commit of then: without a revision, or where its branch is that still."""
    return [path if path in then else _commit(path, then) for path in now]


def _commit(path: str, then: list[str]) -> str:
    found = as_id(path) if path.startswith(PREFIX) else None
    if found is None:
        return path
    known = {old: of_hub for old in then if (of_hub := as_id(old)) is not None}
    if not found.revision:
        same = (old for old, own in known.items() if own.repository == found.repository and _file_of(found, own))
        return next(same, path)
    with contextlib.suppress(CheckpointError):  # it has moved away, or nobody can be asked: it is said to be another
        return next((old for old in then if old == str(commit_of(found))), path)
    return path


def _file_of(typed: HubId, kept: HubId) -> bool:
    """Whether an id means the file that was taken."""
    return set(kept.files) <= set(typed.files) and bool(kept.files) == bool(typed.files)


def _said(option: click.Parameter, part: str, old: Any, new: Any) -> str:
    """``--seed was 0, is 4``."""
    flag = next((text for text in option.opts if text.startswith("--")), option.opts[0])
    if part:
        return f"-o {part} was {_shown(old)}, is {_shown(new)}"
    if isinstance(new, bool) and flag != f"--{option.name}":  # --no-baselines
        return f"{flag}: {option.name} was {_shown(old)}, is {_shown(new)}"
    return f"{flag} was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return beginning(str(value), 120) or "empty"

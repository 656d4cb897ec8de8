"""What a run is asked for, as one plain value that the journal can keep, and the command line what it needs to."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import click
import pydantic
from click.core import ParameterSource

from merging.cli.asking.plugin_options import flatten_options, over, parse_options
from merging.cli.asking.tables import File, Found, Model, ModelTable, settings_fields
from merging.errors import FolderError, MergingError, OptionError, RequirementError, UnknownNameError, showable
from merging.forward.workers import Workers
from merging.plugins.options import first_fault
from merging.plugins.registry import KINDS
from merging.plugins.strategy import WHOLE
from merging.running.settings import DECLARED, Settings
from merging.storage.hub.fetching import id_of
from merging.storage.hub.spelling import PREFIX, as_id
from merging.storage.sources import divided, place_of
from merging.tasks.table import Table, TaskTable, absolute, from_anywhere
from merging.tasks.table import code_in as code_in

CHOSEN = {"strategy": "manifoldmix"}
"""Kind → plug-in that is taken where nobody names one; partitioner and optimizer are the strategy's to choose, the
objective is the data's (:func:`merging.evaluation.usual.usual_objective`)."""


class Named(Table):
    """The part of a request that names plug-ins, models, data and places: all of it but settings."""

    strategy: str
    partitioner: str | None
    optimizer: str | None = None
    objective: str | None
    folder: str
    models: list[Model]
    base: Model | None
    task: str | TaskTable | None
    plugin: list[str]
    code: dict[str, str]
    options: dict[Literal["strategy", "partitioner", "optimizer", "objective"], dict[str, Any]]
    output: str | None
    page: bool = False
    command: str


Request = pydantic.create_model(
    "Request",
    __base__=Named,
    __doc__="What :func:`combine` returns, as the journal of a run keeps it; read back by ``--resume``.",
    **settings_fields(...),
)


def said_settings(said: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting, JSON-ready: what was said, else its default (null where requests are silent about it)."""

    def value(name: str, default: Any) -> Any:
        found = said[name] if said.get(name) not in (None, ()) else default
        return list(found) if isinstance(found, tuple) else found

    return {
        name: value(name, None if declared.setting.silent else declared.default) for name, declared in DECLARED.items()
    }


def settings_of(request: Mapping[str, Any], names: Collection[str] = DECLARED) -> Settings:
    """The settings of a request, checked.

    Args:
        request: what was asked for.
        names: the settings that the command takes; the others are nothing to it.

    Raises:
        MergingError: a value outside its range, or a sink that nobody knows or that lacks a package.
    """
    _load_sinks(request, names)
    return Settings.of({name: request.get(name) for name in names})


def _load_sinks(request: Mapping[str, Any], names: Collection[str] = DECLARED) -> None:
    """Loads the files that may define the sinks of a request: settings are checked before any other plug-in is made."""
    if "sinks" in names and request.get("sinks"):
        from merging.plugins.discovery import load_all

        load_all(request.get("plugin") or ())


ALWAYS = ("seed", "budget", "max_evaluations", "device", "format", "baselines", "tests")
"""Settings that every version has kept in its requests: one without them is damaged."""


def restore(kept: Any, folder: Path) -> dict[str, Any]:
    """The request of a run to be resumed.

    Raises:
        FolderError: it is damaged, or a plug-in file has changed since.
    """
    if not isinstance(kept, dict):
        raise FolderError(f"{folder} was not made by 'merge run'; resume it with merging.merge(…, resume=True)")
    # An earlier version had fewer settings; what differs is in the journal's header.
    told = {name: value for name, value in said_settings(kept).items() if name not in ALWAYS} | kept
    try:
        request: dict[str, Any] = Request.model_validate(told).model_dump(exclude_unset=True)
    except pydantic.ValidationError as error:
        place = ".".join(first_fault(error).place)
        raise FolderError(f"{folder}: the journal's request is damaged at '{place}'; start a new run") from None
    if request["code"] != _digests(request["plugin"]):
        raise FolderError(f"{folder} cannot be resumed: a plug-in file has changed; start a new run")
    return request


def combine(flags: Mapping[str, Any], file: File | None, folder: Path | None = None) -> dict[str, Any]:
    """Everything that was said, with defaults for the rest; paths become absolute.

    Args:
        flags: what was said on the command line or, where that says nothing, in the file's [run]; None or empty where
            nobody said anything.
        file: the merge.toml, where there is one: its pool, its task, and what adds up with the command line's.
        folder: the one that the file's paths and ``python:`` modules are relative to; default: the working folder.

    Returns:
        A JSON-ready request: models, base, task (a name or a [task] table), the run's settings and options.
    """
    table, folder = file or File(), (folder or Path.cwd()).absolute()
    request: dict[str, Any] = {kind: flags.get(kind) for kind in KINDS} | said_settings(flags)
    request["folder"] = str(folder)
    key = flags.get("key") or ""
    request["models"] = [_model(path, key) for path in flags.get("models") or ()]
    request["models"] = request["models"] or [_model(model, key, folder) for model in table.pool.models]
    request["base"] = _model(flags["base"], key) if flags.get("base") else None
    if request["base"] is None and table.pool.base:
        request["base"] = _model(table.pool.base, key, folder)
    described = from_anywhere(table.task.model_dump(exclude_defaults=True, exclude_none=True), folder)
    named = described if table.task.name and len(described) > 1 else table.task.name
    request["task"] = flags.get("task") or named or described or None
    if (
        request["task"] is described
        and not table.task.name
        and not (described.get("model") and described.get("held_out"))
    ):
        raise MergingError(
            "[task] needs a name, or a model and held_out data: a folder of class folders, 'file.npz:KEY', …"
        )
    request["plugin"] = [absolute(path, folder) for path in table.run.plugin]
    request["plugin"] += [absolute(path) for path in flags.get("plugin") or ()]
    request["code"] = _digests(request["plugin"])
    request["command"] = command_line(sys.argv[1:])
    options = flatten_options(table.run.options)
    for kind, values in parse_options(flags.get("options") or ()).items():
        options[kind] = over(options.get(kind, {}), values)
    request["options"] = options
    request["output"] = flags.get("output")
    if flags.get("page"):
        request["page"] = True
    if not request["models"] and request["task"] in (None, "digits"):
        request["task"] = "digits"
    return request | {kind: name for kind, name in CHOSEN.items() if request[kind] is None}


def usual_partitioner(request: Mapping[str, Any]) -> str:
    """Name of the partitioner of strategies that have none of their own, where nobody names one."""
    return "clip-c8" if not request["models"] and request["task"] == "digits" else WHOLE


def check_trust(request: Mapping[str, Any], source: str, *, trusted: bool) -> None:
    """Refuses code that a file, not the user's own command line, asks to run, and machines that it names.

    What another machine's Ray answers is a pickle, which is code to whoever takes it.

    Raises:
        MergingError: a ``python:`` entry, a plug-in, or the address of a Ray, without ``--trust-code``.
    """
    wanted = [*code_in(request["task"]), *request["plugin"]]
    if wanted and not trusted:
        raise MergingError(f"{source} wants to run code ({wanted[0]}); read it, then pass --trust-code")
    if not trusted and _elsewhere(request.get("workers")):
        raise MergingError(
            f"{source} wants to work with another machine (workers = {request['workers']}), whose answers are code; "
            "look at it, then pass --trust-code"
        )


def _elsewhere(workers: Any) -> bool:
    try:
        return isinstance(workers, str) and Workers.of(workers).elsewhere
    except OptionError:  # said where settings are read
        return False


def command_line(words: Iterable[str]) -> str:
    r"""A command of ``merge`` as one line that bash and zsh take back: what is not printable is its code, in $'…'.

    >>> command_line(["run", "my model.pt", "tab\there"])
    "merge run 'my model.pt' $'tab\\x09here'"
    """
    return " ".join(["merge", *map(_quoted, words)])


def _quoted(word: str) -> str:
    if showable(word) == word:
        return shlex.quote(word)
    shown = (f"\\{each}" if each in "\\'" else each if showable(each) == each else _bytes(each) for each in word)
    return f"$'{''.join(shown)}'"


def _bytes(character: str) -> str:
    how = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", how))


def _model(model: str | ModelTable, key: str, folder: Path | None = None) -> str | dict[str, str]:
    """A checkpoint of the request: a path or an id of the Hub, or a table of it and a key: the typed one wins."""
    path, own = (model, "") if isinstance(model, str) else (model.path, model.key)
    of_hub = as_id(path, folder)
    place, key = absolute(path, folder) if of_hub is None else str(of_hub), key or own
    return {"path": place, "key": key} if key else place


def pinned(request: Mapping[str, Any]) -> dict[str, Any]:
    """The models and the base of a request whose pool is open, with the commit behind each id of the Hub."""

    def one(model: Any) -> Any:
        path, key = divided(model)
        found = id_of(place_of(path)) if path.startswith(PREFIX) else None
        return model if found is None else {"path": str(found), "key": key} if key else str(found)

    base = request["base"]
    return {"models": [one(model) for model in request["models"]], "base": None if base is None else one(base)}


def _digests(plugins: list[str]) -> dict[str, str]:
    """File → hash of its content; a missing file is left to the loader, which says so."""
    files = [Path(plugin) for plugin in plugins]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def sound_settings(request: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The settings of a request that make sense, defaults in the place of the others, and what is wrong with these."""
    found, wrong = Settings(), list[str]()
    _load_sinks(request)
    for name in DECLARED:
        if request.get(name) is not None:
            try:
                found = found.changed({name: request[name]})
            except (OptionError, UnknownNameError, RequirementError) as error:
                wrong.append(str(error))
    return found, wrong


def requested(flags: dict[str, Any]) -> dict[str, Any]:
    """Makes the request of the command that runs; what needs ``--trust-code`` is refused without.

    Args:
        flags: the command's parameters by name, for which click has looked into the command's file where nothing was
            typed; at least ``task`` and ``trust_code``. What a command has no flag for is the file's.
    """
    found: Found | None = click.get_current_context().obj
    if flags["task"] is not None and flags["task"].endswith(".toml"):
        flags = flags | {"task": None}
    if found is None:
        return combine(flags, None)
    said = flags | {name: value for name, value in found.file.said().items() if flags.get(name) is None}
    folder = found.path.parent
    request = combine(said, found.file, folder)
    own = combine(said | dict.fromkeys(("task", "plugin")), found.file, folder)
    checked = request | {"plugin": own["plugin"], "task": None if flags["task"] else request["task"]}
    from_file = click.get_current_context().get_parameter_source("workers") is ParameterSource.DEFAULT_MAP
    checked["workers"] = request["workers"] if from_file else None
    check_trust(checked, str(found.path), trusted=flags["trust_code"])
    return request

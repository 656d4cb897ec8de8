"""What a run is asked for: flags over merge.toml over defaults, as one plain value that the journal can keep."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from merging.cli.asking.plugin_options import flatten_options, parse_options
from merging.cli.asking.tables import SETS, TOML, File, Model, ModelTable, Table, TaskTable, read_toml
from merging.errors import FolderError, MergingError, showable
from merging.models.spelling import spelled

DEFAULTS: dict[str, Any] = {
    "strategy": "manifoldmix",
    "partitioner": "whole",
    "objective": "accuracy",
    "seed": 0,
    "device": "auto",
    "precision": "auto",
    "threads": None,
    "tune": False,
    "compile": False,
    "format": "safetensors",
    "baselines": True,
    "tests": True,
    "as_stored": False,
}
WRITTEN = ("dtype", "accumulate", "max_shard_size")
"""How the merged model is written."""


class Request(Table):
    """What :func:`combine` returns, as the journal of a run keeps it; read back by ``--resume``."""

    strategy: str
    partitioner: str
    optimizer: str | None = None
    objective: str
    seed: int
    device: str
    precision: str = "auto"
    tune: bool = False
    compile: bool = False
    threads: int | None = None
    format: Literal["safetensors", "pt"]
    baselines: bool
    tests: bool
    budget: int | None
    max_evaluations: int | None
    certify_split: float | None = None
    recalibrate: bool | None = None
    as_stored: bool = False
    cache_memory: int | None = None
    exact_savings: bool | None = None
    dtype: str | None = None
    accumulate: str | None = None
    max_shard_size: str | None = None
    folder: str
    models: list[Model]
    base: Model | None
    task: str | TaskTable | None
    freeze: list[str]
    plugin: list[str]
    code: dict[str, str]
    options: dict[Literal["strategy", "partitioner", "optimizer", "objective"], dict[str, Any]]
    output: str | None
    command: str


def restore(kept: Any, folder: Path) -> dict[str, Any]:
    """The request of a run to be resumed.

    Raises:
        FolderError: it is damaged, or a plug-in file has changed since.
    """
    if not isinstance(kept, dict):
        raise FolderError(f"{folder} was not made by 'merge run'; resume it with merging.merge(…, resume=True)")
    try:
        request = Request.model_validate(kept).model_dump(exclude_unset=True)
    except pydantic.ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise FolderError(f"{folder}: the journal's request is damaged at '{place}'; start a new run") from None
    if request["code"] != _digests(request["plugin"]):
        raise FolderError(f"{folder} cannot be resumed: a plug-in file has changed; start a new run")
    return DEFAULTS | request


def combine(flags: Mapping[str, Any], file: File | None, folder: Path | None = None) -> dict[str, Any]:
    """Flags win over the file, the file over the defaults; paths become absolute.

    Args:
        flags: as the command line gave them, None or empty where it said nothing.
        file: the merge.toml, where there is one.
        folder: the one that the file's paths and ``python:`` modules are relative to; default: the working folder.

    Returns:
        A JSON-ready request: models, base, task (a name or a [task] table), the run's settings and options.
    """
    table, folder = file or File(), (folder or Path.cwd()).absolute()
    unset = (
        "optimizer",
        "budget",
        "max_evaluations",
        "certify_split",
        "recalibrate",
        "cache_memory",
        "exact_savings",
        *WRITTEN,
    )
    request: dict[str, Any] = dict.fromkeys((*DEFAULTS, *unset))
    request |= {key: value for key, value in table.run.model_dump().items() if key in request and value is not None}
    request |= {key: flags[key] for key in request if flags.get(key) is not None}
    request["folder"] = str(folder)
    key = flags.get("key") or ""
    request["models"] = [_model(path, key) for path in flags.get("models") or ()]
    request["models"] = request["models"] or [_model(model, key, folder) for model in table.pool.models]
    request["base"] = _model(flags["base"], key) if flags.get("base") else None
    if request["base"] is None and table.pool.base:
        request["base"] = _model(table.pool.base, key, folder)
    described = _with_absolute_data(table.task.model_dump(exclude_defaults=True, exclude_none=True), folder)
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
    request["freeze"] = list(flags.get("freeze") or table.run.freeze)
    request["plugin"] = [_absolute(path, folder) for path in table.run.plugin]
    request["plugin"] += [_absolute(path) for path in flags.get("plugin") or ()]
    request["code"] = _digests(request["plugin"])
    request["command"] = showable(shlex.join(["merge", *sys.argv[1:]]), keep="\n")
    options = flatten_options(table.run.options)
    for kind, values in parse_options(tuple(flags.get("options") or ())).items():
        # An inner strategy from the command line takes the file's, with its options, away.
        kept = {k: v for k, v in options.get(kind, {}).items() if k.partition(".")[0] not in values}
        options[kind] = kept | values
    request["options"] = options
    request["output"] = flags.get("output") or table.run.output
    if not request["models"] and request["task"] in (None, "digits"):
        request["task"] = "digits"
        request["partitioner"] = request["partitioner"] or "clip-c8"
    return request | {key: value for key, value in DEFAULTS.items() if request[key] is None}


def check_trust(request: Mapping[str, Any], source: str, *, trusted: bool) -> None:
    """Refuses code that a file, not the user's own command line, asks to run.

    Raises:
        MergingError: a ``python:`` entry or a plug-in, without ``--trust-code``.
    """
    wanted = [*code_in(request["task"]), *request["plugin"]]
    if wanted and not trusted:
        raise MergingError(f"{source} wants to run code ({wanted[0]}); read it, then pass --trust-code")


def code_in(entry: Any) -> list[str]:
    """The ``python:`` entries of a task, wherever in its tables they stand."""
    if isinstance(entry, Mapping | list):
        return [code for value in (entry.values() if isinstance(entry, Mapping) else entry) for code in code_in(value)]
    return [entry] if isinstance(entry, str) and entry.startswith("python:") else []


def _model(model: str | ModelTable, key: str, folder: Path | None = None) -> str | dict[str, str]:
    """A checkpoint of the request: a path, or a table with path and key. The command line's key wins."""
    path, own = (model, "") if isinstance(model, str) else (model.path, model.key)
    place, key = _absolute(path, folder), key or own
    return {"path": place, "key": key} if key else place


def _absolute(path: str, folder: Path | None = None) -> str:
    try:
        return str((folder or Path.cwd()) / Path(path).expanduser())
    except RuntimeError as error:  # ~nobody
        raise MergingError(f"{path}: {error}") from None


def _digests(plugins: list[str]) -> dict[str, str]:
    """File → hash of its content; a missing file is left to the loader, which says so."""
    files = [Path(plugin) for plugin in plugins]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def _with_absolute_data(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A [task] table whose data can be read from any working folder."""

    def moved(data: Any) -> Any:
        if isinstance(data, dict):
            return data | {"path": moved(data["path"])}
        return data if data.startswith("python:") else _absolute(data, folder)

    for key in (*SETS, "data"):
        if table.get(key):
            table[key] = moved(table[key])
    if "shifts" in table:
        table["shifts"] = {name: moved(data) for name, data in table["shifts"].items()}
    if table.get("model"):
        table["model"] = spelled(table["model"])
    source, _, place = table.get("model", "").partition(":")
    if source == "transformers" and place:
        table["model"] = f"{source}:{_absolute(place, folder)}"
    return table


SETTINGS = (
    "seed",
    "budget",
    "max_evaluations",
    "freeze",
    "device",
    "precision",
    "tune",
    "compile",
    "baselines",
    "tests",
    "certify_split",
    "recalibrate",
    "as_stored",
    "threads",
)
"""What a request hands to :func:`merging.merge` and :func:`merging.running.plan.plan` as it is."""


def requested(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags over merge.toml; what needs ``--trust-code`` is refused without.

    Args:
        flags: at least ``task`` and ``trust_code``; what a command does not have counts as not given.
    """
    task = flags["task"]
    from_file = task is not None and task.endswith(".toml")
    path = Path(task) if from_file else Path(TOML)
    file = read_toml(path) if from_file or path.is_file() else None
    if from_file:
        flags = flags | {"task": None}
    folder = path.parent if file is not None else None
    request = combine(flags, file, folder)
    if file is not None:
        own = combine(flags | dict.fromkeys(("task", "plugin")), file, folder)
        if not flags["task"] or own["plugin"]:
            checked = request | {"plugin": own["plugin"], "task": None if flags["task"] else request["task"]}
            check_trust(checked, str(path), trusted=flags["trust_code"])
    return request

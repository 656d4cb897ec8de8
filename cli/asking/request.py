"""What a run is asked for: flags over merge.toml over defaults, as one plain value that the journal can keep."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shlex
import sys
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from merging.errors import FolderError, MergingError, OptionError, refused, showable, unknown
from merging.models.spelling import spelled
from merging.plugins.registry import KINDS

TOML = "merge.toml"
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


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class DataTable(_Table):
    """One set of a [task], where its path does not say everything."""

    path: str
    classes: Literal["own", "all"] | list[str] | None = None
    map: dict[str, str | list[str]] = {}
    border: int | None = None
    corrupt: float | None = None
    upright: bool | None = None
    image: str | None = None
    label: str | None = None
    group: str | None = None
    text: str | list[str] | None = None


Data: TypeAlias = Annotated[
    Annotated[str, pydantic.Tag("path")] | Annotated[DataTable, pydantic.Tag("table")],
    pydantic.Discriminator(lambda value: "table" if isinstance(value, dict | DataTable) else "path"),
]
"""A path, or a table with one; told apart first, so that an error speaks of what was written."""
SETS = ("held_out", "test", "train", "unlabelled")


class TaskTable(_Table):
    """[task]: a registered name, or a model with its data."""

    name: str | None = None
    model: str | dict[str, Any] | None = None
    held_out: Data | None = None
    test: Data | None = None
    shifts: dict[str, Data] = {}
    train: Data | None = None
    unlabelled: Data | None = None
    data: str | None = None
    classes: list[str] | None = None
    templates: list[str] | None = None
    corrupt: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    size: int | str | None = None


class ModelTable(_Table):
    """A checkpoint whose path does not say everything."""

    path: str
    key: str = ""


Model: TypeAlias = Annotated[
    Annotated[str, pydantic.Tag("path")] | Annotated[ModelTable, pydantic.Tag("table")],
    pydantic.Discriminator(lambda value: "table" if isinstance(value, dict | ModelTable) else "path"),
]
"""A path, or a table with one and the key of a state dict in it."""


class PoolTable(_Table):
    """[pool]: the checkpoints."""

    models: list[Model] = []
    base: Model | None = None


class RunTable(_Table):
    """[run]: what the flags of ``merge run`` say."""

    strategy: str | None = None
    partitioner: str | None = None
    optimizer: str | None = None
    objective: str | None = None
    budget: int | None = None
    max_evaluations: int | None = None
    seed: int | None = None
    device: str | None = None
    precision: str | None = None
    tune: bool | None = None
    compile: bool | None = None
    threads: int | None = None
    output: str | None = None
    format: str | None = None
    freeze: list[str] = []
    plugin: list[str] = []
    baselines: bool | None = None
    tests: bool | None = None
    certify_split: float | None = None
    recalibrate: bool | None = None
    as_stored: bool | None = None
    cache_memory: int | None = None
    exact_savings: bool | None = None
    dtype: str | None = None
    accumulate: str | None = None
    max_shard_size: str | None = None
    options: dict[str, Any] = {}


class File(_Table):
    """The whole of merge.toml."""

    task: TaskTable = TaskTable()
    pool: PoolTable = PoolTable()
    run: RunTable = RunTable()


class Request(_Table):
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


def read_toml(path: Path) -> File:
    """Reads and checks a merge.toml.

    Raises:
        MergingError: no TOML, an unknown key (the nearest is named) or a value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise MergingError(f"{path}: {error}") from None
    try:
        return File.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            tables: dict[str, type[_Table]] = {"task": TaskTable, "pool": PoolTable, "run": RunTable}
            known = tables[place[0]].model_fields if len(place) > 1 else File.model_fields
            where = f"key in [{place[0]}] of {path}:" if len(place) > 1 else f"table in {path}:"
            if place[0] == "pool" and len(place) > 2:
                known, where = ModelTable.model_fields, f"key in [pool] {place[1]} of {path}:"
            elif len(place) > 2:
                known, where = DataTable.model_fields, f"key in [{'.'.join(_written(place[:-1]))}] of {path}:"
            raise MergingError(str(unknown(where, place[-1], known))) from None
        raise MergingError(f"{path}: {'.'.join(_written(place))}: {first['msg']}") from None


def _written(place: list[str]) -> list[str]:
    """A place in the file, without the mark that says which of two forms a set of a [task] has."""
    mark = 3 if place[:2] == ["task", "shifts"] else 2
    return place[:mark] + place[mark + 1 :] if place[0] == "task" and place[1:2] != ["classes"] else place


def flatten_options(nested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """[run.options] as written, either ``"strategy.tau" = 1`` or ``strategy.tau = 1``, to kind → option → value."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in nested.items():
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for inner, content in pairs:
            _put(found, key if inner is None else f"{key}.{inner}", content)
    return found


def parse_options(given: tuple[str, ...], kinds: Collection[str] = tuple(KINDS)) -> dict[str, dict[str, Any]]:
    """``-o strategy.tau=0.99``; an option given twice becomes a list. ``kinds``: of plug-ins that may have options."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"-o {text}: write it as kind.option=value, such as -o strategy.tau=0.99")
        _put(found, key, value, kinds)
    return found


def _put(found: dict[str, dict[str, Any]], key: str, value: Any, kinds: Collection[str] = tuple(KINDS)) -> None:
    kind, dot, name = key.partition(".")
    if not dot:
        raise OptionError(f"option '{key}' says no kind; write kind.option, such as {next(iter(kinds))}.{key}")
    if kind not in kinds:
        raise OptionError(str(unknown("kind of option", kind, kinds)))
    values = found.setdefault(kind, {})
    if name in values:
        before = values[name]
        values[name] = [*(before if isinstance(before, list) else [before]), value]
    else:
        values[name] = value


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


@contextlib.contextmanager
def output_folder(given: str | None, what: str) -> Iterator[Path]:
    """The folder for a result: the given one, or a new one named after the time, with a number where that is taken.

    A new one is nobody else's from now on, and gone again where nothing was written to it.
    """
    if given:
        yield Path(given)
        return
    from merging.storage.atomic import make_folder

    what = re.sub(r"[^\w+-]+", "_", what)[:60]
    now = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = Path("runs") / (f"{now}-{what}" if number == 1 else f"{now}-{number}-{what}")
        with contextlib.suppress(FileExistsError):
            try:
                make_folder(folder, exist_ok=False)
            except FileExistsError:
                if not folder.is_dir():  # runs is a file
                    raise FolderError(f"cannot make {folder}; choose another --output") from None
                raise
            except OSError as error:
                raise FolderError(f"cannot make {folder}: {refused(error)}; choose another --output") from None
            break
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            folder.rmdir()
            folder.parent.rmdir()


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

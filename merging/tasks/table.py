"""The table [task], as merge.toml and Python write it: checked key by key, its paths absolute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import pydantic

from merging.data.form import KEYS, is_parts
from merging.errors import MergingError
from merging.models.spelling import spelled
from merging.storage.hub.spelling import as_id


class Table(pydantic.BaseModel):
    """A table in which every key is known, and every value of its type."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class OneSet(pydantic.BaseModel):
    """A table whose other keys are options of a form of data, which knows them once plug-ins are there."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, pydantic.JsonValue]

    path: str


if TYPE_CHECKING:
    DataTable: TypeAlias = OneSet
else:
    DataTable = pydantic.create_model(
        "DataTable",
        __base__=OneSet,
        __doc__="One set of a [task], where its path does not say everything.",
        **{name: (kind | None, None) for name, kind in KEYS.items() if name != "path"},
    )


One: TypeAlias = Annotated[
    Annotated[str, pydantic.Tag("path")] | Annotated[DataTable, pydantic.Tag("table")],
    pydantic.Discriminator(lambda value: "table" if isinstance(value, dict | DataTable) else "path"),
]
"""A path, or a table with one; told apart first, so that an error speaks of what was written."""


def _shape(value: Any) -> str:
    if isinstance(value, dict) and (is_parts(value) or any(isinstance(each, OneSet) for each in value.values())):
        return "parts"
    return "table" if isinstance(value, dict | DataTable) else "path"


Data: TypeAlias = Annotated[
    Annotated[str, pydantic.Tag("path")]
    | Annotated[DataTable, pydantic.Tag("table")]
    | Annotated[dict[str, One], pydantic.Tag("parts")],
    pydantic.Discriminator(_shape),
]
"""A path, a table with one, or a table of named sets, which are joined."""
SETS = ("held_out", "test", "train", "unlabelled")


class TaskTable(Table):
    """The table [task]: a registered name, or a model with its data."""

    name: str | None = None
    options: dict[str, Any] = {}
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


def code_in(entry: Any) -> list[str]:
    """The ``python:`` entries of a task, wherever in its tables they stand."""
    if isinstance(entry, Mapping | list):
        return [code for value in (entry.values() if isinstance(entry, Mapping) else entry) for code in code_in(value)]
    return [entry] if isinstance(entry, str) and entry.startswith("python:") else []


def absolute(path: str, folder: Path | None = None) -> str:
    """A path that means the same in any working folder.

    Args:
        path: path as it was written; ``~`` stands for a home.
        folder: the one that it is relative to; default: the working folder.

    Raises:
        MergingError: there is no such home.
    """
    try:
        return str((folder or Path.cwd()) / Path(path).expanduser())
    except RuntimeError as error:  # ~nobody
        raise MergingError(f"{path}: {error}") from None


def from_anywhere(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A [task] table whose data can be read from any working folder; ``folder`` is its file's."""

    def moved(data: Any) -> Any:
        if isinstance(data, dict) and is_parts(data):
            return {name: moved(part) for name, part in data.items()}
        if isinstance(data, dict):
            return data | {"path": moved(data["path"])}
        return data if data.startswith("python:") else absolute(data, folder)

    for key in (*SETS, "data"):
        if table.get(key):
            table[key] = moved(table[key])
    if "shifts" in table:
        table["shifts"] = {name: moved(data) for name, data in table["shifts"].items()}
    if table.get("model"):
        table["model"] = spelled(table["model"])
    source, _, place = table.get("model", "").partition(":")
    if source == "transformers" and place:
        of_hub = as_id(place.partition("(")[0], folder)
        table["model"] = f"{source}:{absolute(place, folder) if of_hub is None else place}"
    return table

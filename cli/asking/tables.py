"""What merge.toml says: its tables, checked key by key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from merging.errors import MergingError, unknown

TOML = "merge.toml"


class Table(pydantic.BaseModel):
    """A table in which every key is known, and every value of its type."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class DataTable(Table):
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


class TaskTable(Table):
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


class ModelTable(Table):
    """A checkpoint whose path does not say everything."""

    path: str
    key: str = ""


Model: TypeAlias = Annotated[
    Annotated[str, pydantic.Tag("path")] | Annotated[ModelTable, pydantic.Tag("table")],
    pydantic.Discriminator(lambda value: "table" if isinstance(value, dict | ModelTable) else "path"),
]
"""A path, or a table with one and the key of a state dict in it."""


class PoolTable(Table):
    """[pool]: the checkpoints."""

    models: list[Model] = []
    base: Model | None = None


class RunTable(Table):
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


class File(Table):
    """The whole of merge.toml."""

    task: TaskTable = TaskTable()
    pool: PoolTable = PoolTable()
    run: RunTable = RunTable()


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
            tables: dict[str, type[Table]] = {"task": TaskTable, "pool": PoolTable, "run": RunTable}
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

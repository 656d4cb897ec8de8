"""What merge.toml says: its tables, checked key by key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_origin

import pydantic

from merging.errors import MergingError, unknown
from merging.plugins.options import Option, first_fault
from merging.running.settings import DECLARED
from merging.storage import toml
from merging.tasks.table import SETS as SETS
from merging.tasks.table import Table, TaskTable

TOML = "merge.toml"


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
    """The table [pool]: the checkpoints, and the model that they were fine-tuned from."""

    models: list[Model] = pydantic.Field(default_factory=list)
    base: Model | None = None


def settings_fields(default: Any) -> dict[str, Any]:
    """A field for each setting, of its declared type and range or None, as ``pydantic.create_model`` takes them.

    Args:
        default: what a setting is where it is not there; ``...``: it must be.
    """

    def kind(declared: Option) -> Any:
        if get_origin(declared.type) is tuple:
            return list[str]
        return Literal[declared.spec.choices] if declared.spec.choices else declared.annotation

    return {name: (kind(declared) | None, default) for name, declared in DECLARED.items()}


class Chosen(Table):
    """The part of [run] besides settings: names of plug-ins, their options and files, folder and page."""

    strategy: str | None = None
    partitioner: str | None = None
    optimizer: str | None = None
    objective: str | None = None
    output: str | None = None
    page: bool | None = None
    plugin: list[str] = pydantic.Field(default_factory=list)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


if TYPE_CHECKING:
    RunTable: TypeAlias = Chosen
else:
    RunTable = pydantic.create_model(
        "RunTable", __base__=Chosen, __doc__="[run]: what the flags of ``merge run`` say.", **settings_fields(None)
    )


class File(Table):
    """The whole of merge.toml."""

    task: TaskTable = TaskTable()
    pool: PoolTable = PoolTable()
    run: RunTable = RunTable()

    def said(self) -> dict[str, Any]:
        """Name of a flag → what [run] says for it; not for plug-in files and options of plug-ins, which add up."""
        run = self.run.model_dump(exclude_unset=True, exclude={"plugin", "options"})
        return {name: value for name, value in run.items() if value is not None}


@dataclass(frozen=True)
class Found:
    """The file that a command reads: merge.toml in the working folder, or what ``--task`` names."""

    path: Path
    file: File


def find(task: str | None) -> Found | None:
    """The file for a command whose ``--task`` is this one, or None where there is none.

    Raises:
        MergingError: what :func:`read_toml` raises.
    """
    named = task is not None and task.endswith(".toml")
    path = Path(task or "") if named else Path(TOML)
    return Found(path, read_toml(path)) if named or path.is_file() else None


def read_toml(path: Path) -> File:
    """Reads and checks a merge.toml.

    Raises:
        MergingError: no TOML, an unknown key (the nearest is named) or a value of the wrong type.
    """
    data = toml.read_toml(path)
    try:
        return File.model_validate(data)
    except pydantic.ValidationError as error:
        first = first_fault(error)
        place = list(first.place)
        if first.kind == "extra_forbidden":
            tables: dict[str, type[Table]] = {"task": TaskTable, "pool": PoolTable, "run": RunTable}
            known = tables[place[0]].model_fields if len(place) > 1 else File.model_fields
            where = f"key in [{place[0]}] of {path}:" if len(place) > 1 else f"table in {path}:"
            if place[0] == "pool" and len(place) > 2:
                known, where = ModelTable.model_fields, f"key in [pool] {place[1]} of {path}:"
            if place[0] == "task" and len(place) == 2:
                from merging.tasks.catalogue import place_of_option  # which loads what tasks need

                if way := place_of_option(data["task"], place[1], known):
                    raise MergingError(f"unknown {where} '{place[1]}'; {way}") from None
            raise unknown(where, place[-1], known, error=MergingError) from None
        if place[0] == "run" and place[1:] and place[1] in DECLARED:  # its own words: range, nearest name
            DECLARED[place[1]].check(data["run"][place[1]], f"run.{place[1]} of {path}")
        raise MergingError(f"{path}: {'.'.join(_written(place))}: {first.words}") from None


def _written(place: list[str]) -> list[str]:
    """A place in the file, without the mark that says which of two forms a set of a [task] has."""
    mark = 3 if place[:2] == ["task", "shifts"] else 2
    return place[:mark] + place[mark + 1 :] if place[0] == "task" and place[1:2] != ["classes"] else place

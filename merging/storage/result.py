"""What stands in a result's folder: the model, its companions, recipe, report, card, and an ensemble's members."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError

from merging.errors import DAMAGED, FormatError, MergingError, RecipeError, near_path, raised, reason_of
from merging.storage import atomic
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import copy_companion
from merging.storage.dtypes import FORMATS
from merging.storage.token_maps import FILES
from merging.storage.vocabulary_files import files_of
from merging.values.formats import ENSEMBLE as FORMAT
from merging.values.formats import check_format, known_fields, parsed
from merging.values.recipe import Merge, Recipe
from merging.values.wording import beginning

if TYPE_CHECKING:
    from torch import Tensor

RECIPE = "recipe.json"
OVERRIDES = "overrides.safetensors"
REPORT = "report.json"
PAGE = "report.html"
"""The report for a browser, where one was asked for: written after the rest, of which it is made."""
CARD = "README.md"
ENSEMBLE = "ensemble.json"
MEMBERS = "members"
ADAPTER = "adapter_model.safetensors"
MODELS = {name: f"model.{name}" for name in FORMATS}


def save_model(path: Path, tensors: Mapping[str, Tensor], kind: str, ties: tuple[tuple[str, ...], ...] = ()) -> None:
    """Writes a state dict; tied tensors stay one storage in a ``.pt`` and become copies in safetensors."""
    state = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if kind == "pt":
        for group in ties:
            state |= dict.fromkeys(group[1:], state[group[0]])
        atomic.save_torch(path, state)
    else:
        seen: set[int] = set()
        for name, tensor in state.items():
            if tensor.untyped_storage().data_ptr() in seen:
                state[name] = tensor.clone()
            seen.add(tensor.untyped_storage().data_ptr())
        atomic.save_safetensors(path, state, {"format": "pt"})


def carry(checkpoint: Checkpoint, aside: Path, dtype: str | None) -> None:
    """Copies what belongs to a model besides its tensors; ``config.json`` then says the new dtype.

    Of a model that is seen in another vocabulary, that one's tokenizer and a configuration that fits are written.
    """
    if checkpoint.aligned is not None:
        alignment = checkpoint.aligned.alignment
        checkpoint = alignment.home
        for name, content in files_of(alignment).items():
            if not (aside / name).exists():
                atomic.put(aside / name, content)
    else:
        alignment = None
    for file in checkpoint.extras:
        if alignment is not None and file.name in FILES:
            continue
        if not (aside / file.name).exists():
            copy_companion(file, aside / file.name)
    config = aside / "config.json"
    if dtype is not None and config.exists():
        with contextlib.suppress(ValueError):
            content = json.loads(config.read_bytes())
            for key in {"torch_dtype", "dtype"} & set(content):
                content[key] = dtype
            _write_json(config, content)


def write_ensemble(aside: Path, average: str, members: Sequence[Mapping[str, Any]]) -> None:
    """Writes which members there are and how their outputs are averaged."""
    _write_json(aside / ENSEMBLE, {"format": FORMAT, "average": average, "members": list(members)})


def read_ensemble(folder: Path) -> tuple[Literal["logits", "probabilities"], list[tuple[Path, str, float]]]:
    """Reads what an ensemble averages, and each member's folder, name and weight.

    A member lies in the folder, under a name that a run gives: the file may have come from anybody.

    Raises:
        RecipeError: it is damaged, or a member lies elsewhere.
    """
    path = folder / ENSEMBLE
    try:
        data = parsed(path.read_bytes())
        check_format(data["format"], FORMAT)
        members = [_Member(**known_fields(_Member, member)) for member in data["members"]]
        if data["average"] not in ("logits", "probabilities"):
            raise ValueError(f"average is {beginning(repr(data['average']), 60)}")
        if not members or min(m.weight for m in members) < 0 or not any(m.weight for m in members):
            raise ValueError("there are no members, or a weight is negative, or all are zero")
    except FormatError as error:
        raise RecipeError(f"{path}: {error}") from None
    except DAMAGED as error:
        raise RecipeError(f"{path} is damaged: {raised(error, whole=True)}") from None
    away = next((m.folder for m in members if not (is_member(m.folder) and lies_in(folder, m.folder))), None)
    if away is not None:
        where = beginning(repr(away), 60)
        raise RecipeError(f"{path}: its member {where} is no folder in {MEMBERS}/; name the model itself instead")
    return data["average"], [(folder / m.folder, m.name, float(m.weight)) for m in members]


@dataclass(frozen=True)
class _Member:
    """An entry of ``members``, as far as its model is needed."""

    folder: str
    name: str
    weight: float


def is_member(name: str) -> bool:
    """Whether a path within a result's folder is one that a run gives to a member of an ensemble."""
    return re.fullmatch(rf"{MEMBERS}/[0-9]+", name) is not None


def lies_in(folder: Path, name: str) -> bool:
    """Whether a path within a folder leads nowhere else: no part of it is a link, whoever has made that.

    Args:
        folder: the folder, which may itself be reached by links.
        name: the path, as a result's file says it.
    """
    relative = Path(name).parts != () and not Path(name).is_absolute()
    return relative and (folder / name).resolve() == folder.resolve() / name


def named_files(folder: Path) -> tuple[str, ...]:
    """The names of files that the report of a result says were written; what leads out of its folder is no such name.

    Raises:
        OSError: there is no report.
        KeyError, TypeError, ValueError: it is damaged.
    """
    names = parsed((folder / REPORT).read_bytes())["files"]
    if not isinstance(names, list):
        raise TypeError(f"files is {beginning(repr(names), 60)}")
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and is_plain(name)))


def is_plain(name: str) -> bool:
    """Whether a name from a file is that of something in a folder: no path, on no system, and nothing hidden."""
    return name != "" and Path(name).name == name and not name.startswith(".") and not {"\\", "\0"} & set(name)


def member_files(folder: Path) -> Iterator[Path]:
    """Lists what lies in the folders of an ensemble's members; not what others have put beside these folders."""
    for path in sorted((folder / MEMBERS).glob("*/*")):
        if is_member(path.parent.relative_to(folder).as_posix()):
            yield path


def write_beside(aside: Path, merged: Merge, report: Mapping[str, Any], card: str) -> None:
    """Writes recipe (where there is one), card, and the report with the lineage."""
    if isinstance(merged, Recipe):
        _write_json(aside / RECIPE, merged.to_json())
        if merged.overrides:
            atomic.save_safetensors(aside / OVERRIDES, merged.overrides)
    atomic.put(aside / CARD, card)
    files = sorted({file.name for file in aside.iterdir()} | {REPORT})
    lineage = [ingredient.to_json() | {"key": ingredient.key} for ingredient in merged.ingredients]
    _write_json(aside / REPORT, {**report, "lineage": lineage, "files": files})


def result_files(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files that the report of a result names: what describes the model, and the model with what goes along.

    Raises:
        OSError: there is no report.
        KeyError, TypeError, ValueError: it is damaged.
    """
    names = sorted(named_files(folder))
    describing = [folder / name for name in names if name in (REPORT, RECIPE, OVERRIDES, CARD, ENSEMBLE)]
    model = [folder / name for name in names if folder / name not in describing and (folder / name).is_file()]
    inside = [path for path in member_files(folder) if path.is_file()] if MEMBERS in names else []
    return tuple(describing), (*model, *inside)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.put(path, text.encode("utf-8", "backslashreplace"))  # a path that is no text, as JSON's own escape


def _load(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a recipe's safetensors file.

    Raises:
        RecipeError: it is not there, or damaged.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise RecipeError(f"there is no {path}, whose tensors the recipe beside it names; copy both") from None
    except (*DAMAGED, SafetensorError) as error:
        raise RecipeError(f"{path} is damaged: {raised(error, whole=True)}") from None
    return tensors


def read_recipe(path: Path, *, measured: bool = True) -> Recipe:
    """Reads ``recipe.json`` and, beside it, its overrides.

    Args:
        path: the file, or the folder that it stands in.
        measured: whether its overrides are read, too; else the recipe has none.

    Raises:
        RecipeError: there is none, or it is damaged.
    """
    path = path / RECIPE if path.is_dir() else path
    try:
        data = parsed(path.read_bytes())
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}{near_path(path)}") from None
    except OSError as error:
        raise RecipeError(f"cannot read a recipe at {reason_of(error)}") from None
    except DAMAGED as error:
        raise RecipeError(f"{path} is damaged: {error}") from None
    overrides: dict[str, Tensor] = {}
    if isinstance(data, Mapping) and data.get("overrides") and isinstance(data["overrides"], Mapping):
        if measured:
            overrides = _load(path.with_name(OVERRIDES))
        else:
            data = {**data, "overrides": {}}
    try:
        recipe = Recipe.from_json(data, overrides)
    except MergingError as error:
        raise RecipeError(f"{path}: {error}") from None
    wrong = next((row for row in recipe.ingredients if not re.fullmatch("[0-9a-f]{64}", row.hash)), None)
    if wrong is not None:
        said, hashed = beginning(wrong.name, 60), beginning(repr(wrong.hash), 60)
        raise RecipeError(f"{path}: the hash of ingredient '{said}' is {hashed}, which is none; copy the recipe again")
    return recipe

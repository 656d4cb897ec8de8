"""What stands in a result's folder: the model, its companions, recipe, report, card, and an ensemble's members."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError

from merging.errors import DAMAGED, FormatError, RecipeError, near_path, raised
from merging.storage import atomic
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import copy_companion
from merging.storage.dtypes import FORMATS
from merging.storage.token_maps import FILES
from merging.storage.vocabulary_files import files_of
from merging.values.formats import ENSEMBLE as FORMAT
from merging.values.formats import check_format
from merging.values.recipe import Merge, Recipe

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

    Raises:
        RecipeError: it is damaged.
    """
    path = folder / ENSEMBLE
    try:
        data = json.loads(path.read_bytes())
        check_format(data["format"], FORMAT)
        members = [(folder / m["folder"], str(m["name"]), float(m["weight"])) for m in data["members"]]
        if data["average"] not in ("logits", "probabilities"):
            raise ValueError(f"average {data['average']!r}")
    except FormatError as error:
        raise RecipeError(f"{path}: {error}") from None
    except DAMAGED as error:
        raise RecipeError(f"{path} is damaged: {raised(error, whole=True)}") from None
    return data["average"], members


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
        ValueError: it is damaged.
    """
    names = sorted(json.loads((folder / REPORT).read_bytes())["files"])
    describing = [folder / name for name in names if name in (REPORT, RECIPE, OVERRIDES, CARD, ENSEMBLE)]
    model = [folder / name for name in names if folder / name not in describing and (folder / name).is_file()]
    inside = sorted(path for path in (folder / MEMBERS).rglob("*") if path.is_file()) if MEMBERS in names else []
    return tuple(describing), (*model, *inside)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.put(path, text.encode("utf-8", "backslashreplace"))  # a path that is no text, as JSON's own escape


def _load(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file; none where there is no file."""
    if not path.exists():
        return {}
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def read_recipe(path: Path) -> Recipe:
    """Reads ``recipe.json`` and, beside it, its overrides.

    Raises:
        RecipeError: there is none, or it is damaged.
    """
    path = path / RECIPE if path.is_dir() else path
    try:
        data = json.loads(path.read_bytes())
        overrides = _load(path.with_name(OVERRIDES))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}{near_path(path)}") from None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise RecipeError(f"{path} is damaged: {error}") from None
    try:
        return Recipe.from_json(data, overrides)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None

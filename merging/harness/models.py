"""Models as lm-eval loads them: folders in transformers' layout, adapters over a base, recipes put together first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from merging.errors import MergingError, RequirementError
from merging.plugins.watcher import Watcher
from merging.running.applying import apply
from merging.storage import atomic
from merging.storage.adapter_base import recorded_base
from merging.storage.adapter_folder import adapter_folder, read_config
from merging.storage.model_folder import LOADED, is_model_folder, is_transformers
from merging.storage.result import ENSEMBLE, RECIPE, read_recipe

CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
_NAMES = frozenset(name for names in LOADED for name in names)


@dataclass(frozen=True, kw_only=True)
class Loadable:
    """A model as lm-eval is told of it.

    Attributes:
        folder: folder of a whole model, or of the one that an adapter stands on.
        adapter: folder of an adapter; None: there is none.
        recipe: a recipe that is put together first, in a folder of its own; None: there is none.
    """

    folder: Path
    adapter: Path | None = None
    recipe: Path | None = None

    @contextlib.contextmanager
    def ready(self, beside: Path, watcher: Watcher) -> Iterator[tuple[Path, Path | None]]:
        """The folders of model and adapter, made where there is a recipe, and gone afterwards.

        Args:
            beside: a folder in which there is room for a model.
            watcher: is told what happens, and may end it.

        Raises:
            MergingError: a recipe's ingredients are not there.
        """
        if self.recipe is None:
            yield self.folder, self.adapter
            return
        aside = atomic.new_folder(beside)
        try:
            made = aside / "model"
            apply(self.recipe, output=made, watcher=watcher)
            check_layout(made, str(self.recipe))
            yield made, None
        finally:
            atomic.remove(aside)


def is_loadable(path: Path) -> bool:
    """Whether a path is one model, and not a folder of several."""
    if path.is_file():
        return path.name == RECIPE
    return path.is_dir() and (is_model_folder(path) or any((path / name).is_file() for name in (RECIPE, ENSEMBLE)))


def loadable(path: Path) -> Loadable:
    """Finds what lm-eval loads where a model is named.

    Args:
        path: a folder in transformers' layout, the folder of a run or of an adapter, the file of weights in one of
            these, or a ``recipe.json``.

    Raises:
        MergingError: lm-eval would not load it.
    """
    if (path / ENSEMBLE).is_file():
        raise RequirementError(
            f"{path}: is an ensemble, and lm-eval loads one model; name its members ({path}/members)"
        )
    if path.name == RECIPE or (path.is_dir() and (path / RECIPE).is_file() and not is_model_folder(path)):
        read_recipe(path)
        return Loadable(folder=path.parent, recipe=path)
    if (adapter := adapter_folder(path)) is not None:
        base = loadable(recorded_base(read_config(adapter)))
        if base.recipe is not None or base.adapter is not None:
            raise RequirementError(
                f"{adapter}: stands on {base.folder}, which is no whole model; lm-eval loads no such"
            )
        return Loadable(folder=base.folder, adapter=adapter)
    folder = path.parent if path.name in _NAMES and path.is_file() else path
    if folder.is_file():
        raise RequirementError(
            f"{folder}: lm-eval loads folders that save_pretrained has written, with {CONFIG} beside the weights"
        )
    check_layout(folder, str(path))
    return Loadable(folder=folder)


def check_layout(folder: Path, called: str) -> None:
    """Refuses a folder that transformers would not load.

    Raises:
        MergingError: configuration, tokenizer or weights are missing.
    """
    if not (folder / CONFIG).is_file() or not is_transformers(folder / CONFIG):
        raise MergingError(f"{called}: no {CONFIG} of transformers there, and lm-eval loads no other models")
    names = {entry.name for entry in folder.iterdir()}
    if not names & set(TOKENIZERS):
        raise MergingError(f"{called}: no tokenizer there ({TOKENIZERS[0]}, …), and lm-eval needs one; save it there")
    if not names & _NAMES:
        raise MergingError(f"{called}: no weights there that transformers loads ({LOADED[0][0]}, …)")


def loadables(named: Mapping[str, Path]) -> dict[str, Loadable]:
    """The same of several models; says all faults, not the first.

    Args:
        named: name → place.

    Raises:
        MergingError: some cannot be loaded.
    """
    found, wrong = dict[str, Loadable](), list[str]()
    for name, path in named.items():
        try:
            found[name] = loadable(path)
        except MergingError as error:
            wrong.append(str(error))
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))
    return found

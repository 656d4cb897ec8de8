"""The models of a configuration as the pool of a run: opened, named, their layers counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merging.mergekit.configuration import Configuration
from merging.mergekit.document import Document
from merging.mergekit.reference import Reference
from merging.storage.adapter_base import places as recorded
from merging.storage.adapter_folder import adapter_folder, read_config
from merging.storage.pool import ModelPool
from merging.storage.sources import expand, fetch, identity, place_of
from merging.values.wording import plural

_WAY = "put adapters into their models first (merge_and_unload of PEFT)"


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a configuration.

    Attributes:
        sources: paths and ids of the Hub of what is merged, in the file's order.
        base: the base; none: there is none.
        names: model of the file → its name in the pool, in the pool's order.
        pool: all of them, opened.
    """

    sources: tuple[str, ...]
    base: str | None
    names: dict[Reference, str]
    pool: ModelPool


def models_of(found: Configuration) -> Models:
    """Opens the models that are merged, and their base.

    Raises:
        MergingError: they do not fit together, or an adapter stands on another model than can be said here.
    """
    merged = {entry.model: entry.said["model"] for entry in found.entries}
    counts = found.method.base in ("counts", "first")
    if counts and found.base is not None:
        merged.setdefault(found.base, found.document["base_model"])
    elif found.base is not None:
        merged.pop(found.base, None)
    base = None if counts else found.base
    if base is not None and base.adapter:
        raise found.document["base_model"].wrong(f"is a model with an adapter; {_WAY}")
    under = _under(merged, base)
    fetch([model.adapter or model.source for model in merged] + ([under] if under is not None else []))
    places = {model: _place(said, model.adapter or model.source) for model, said in merged.items()}
    pool = ModelPool.open(list(places.values()), under)
    names = {identity(checkpoint.path): checkpoint.name for checkpoint in pool.checkpoints}
    called = dict[Reference, str]()
    for model, said in merged.items():
        name = names.get(identity(places[model]))
        if name is None or name in called.values():
            raise said.wrong("is the same file or folder as another model of this merge")
        called[model] = name
    order = sorted(called, key=lambda model: pool.names.index(called[model]))
    return Models(
        sources=tuple(model.adapter or model.source for model in merged),
        base=under,
        names={model: called[model] for model in order},
        pool=pool,
    )


def _under(merged: Mapping[Reference, Document], base: Reference | None) -> str | None:
    """The base of the run: the file's, or the model that all adapters stand on.

    Raises:
        MergingError: adapters stand on several models, or on one that is merged itself and that they do not name.
    """
    standing = {model.source for model in merged if model.adapter}
    under = base.source if base is not None else next(iter(standing), None)
    for model, said in merged.items():
        if model.adapter and model.source != under:
            raise said.wrong(f"stands on {model.source}, and another adapter or the base is {under}; {_WAY}")
    alone = {model.source for model in merged if not model.adapter}
    if base is not None or under not in alone:
        return under
    for model, said in merged.items():  # the base of a run is not merged, so the adapters have to name it themselves
        folder = Path(model.adapter)
        if model.adapter and (
            adapter_folder(folder) is None
            or identity(Path(model.source)) not in [identity(place) for place in recorded(read_config(folder))]
        ):
            raise said.wrong(f"stands on {under}, which is merged too, and does not name it as its base; {_WAY}")
    return None


def _place(said: Document, source: str) -> Path:
    """The one file or folder of a source.

    Raises:
        MergingError: it is a folder of no model, or of several.
    """
    place = place_of(source)
    found = expand(place)
    if len(found) != 1 or identity(found[0]) != identity(place):
        raise said.wrong(
            f"is {place}, a folder of {plural(len(found), 'model')}, not one"
            if len(found) != 1
            else f"is {place}, which holds {found[0].name} without a configuration; name the file"
        )
    return place

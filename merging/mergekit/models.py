"""The models of a configuration as the pool of a run: opened, named, their layers counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.mergekit.configuration import Configuration
from merging.mergekit.document import Document
from merging.mergekit.reference import Reference
from merging.storage.adapter_base import places as recorded
from merging.storage.adapter_folder import adapter_folder, read_config
from merging.storage.agreement import check_agreement
from merging.storage.alignment import FIRST
from merging.storage.alignment import SOURCES as VOCABULARIES
from merging.storage.checkpoint import Checkpoint
from merging.storage.hub.ahead import ahead
from merging.storage.hub.fetching import folders
from merging.storage.hub.spelling import PREFIX, as_id
from merging.storage.pool import ModelPool
from merging.storage.sources import expand, fetch, identity, names_apart, natural_key, place_of
from merging.values.partition import TensorInfo
from merging.values.wording import plural

BASE = ""
"""Stands for the base among the names of models."""
_WAY = "put adapters into their models first (merge_and_unload of PEFT)"


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a configuration.

    Attributes:
        sources: paths and ids of the Hub of what is merged, in the file's order.
        base: the base; none: there is none.
        names: model of the file → its name in the pool, in the pool's order.
        vocabulary: the run's settings of vocabularies.
        tensors: name → (shape, dtype name) of all tensors of each.
        folders: name → where the model lies, or its small files; with ``BASE``, where there is one.
    """

    sources: tuple[str, ...]
    base: str | None
    names: dict[Reference, str]
    vocabulary: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    folders: Mapping[str, Path]


def models_of(found: Configuration) -> Models:
    """Opens the models that are merged, and their base; of those of the Hub that are not here, the headers.

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
    sources = [model.adapter or model.source for model in merged] + ([under] if under is not None else [])
    away = None if any(model.adapter for model in merged) else _away(sources, aligned=found.tokenizer is not None)
    if away is None:
        fetch(sources)
    places = {
        model: _place(said, source) if away is None or not source.startswith(PREFIX) else away.folders[source]
        for (model, said), source in zip(merged.items(), sources, strict=False)
    }
    taken = None if under is None else place_of(under) if away is None else away.folders.get(under, Path(under))
    seen = dict[Any, Reference]()
    for model, said in merged.items():
        if (which := identity(places[model])) in seen or (taken is not None and which == identity(taken)):
            raise said.wrong("is the same file or folder as another model of this merge")
        seen[which] = model
    names, _ = names_apart(list(places.values()), taken)
    called = dict(zip(merged, names, strict=True))
    vocabulary = _vocabulary(found, called, base)
    return Models(
        sources=tuple(model.adapter or model.source for model in merged),
        base=under,
        names=dict(sorted(called.items(), key=lambda item: natural_key(item[1]))),
        vocabulary=vocabulary,
        tensors=_opened(places, under, vocabulary) if away is None else away.tensors,
        folders={called[model]: place for model, place in places.items()} | ({} if taken is None else {BASE: taken}),
    )


@dataclass(frozen=True)
class _Away:
    """Models of the Hub whose weights are not here: source → folder of the small files; the tensors of each."""

    folders: Mapping[str, Path]
    tensors: Mapping[str, TensorInfo]


def _away(sources: Sequence[str], *, aligned: bool) -> _Away | None:
    """Looks at models of the Hub that are not here, without their weights.

    Args:
        sources: what the models are called.
        aligned: whether their rows are still to be aligned by token.

    Returns:
        None where there are none, or where their headers do not say what tensors they have.

    Raises:
        CheckpointError: the Hub has no such model.
        PoolError: models have other tensors than others.
    """
    ids = {source: found for source in sources if source.startswith(PREFIX) and (found := as_id(source)) is not None}
    missing = ahead(list(ids.values()))
    if not missing:
        return None
    known: list[Any] = [Checkpoint(source) for source in sources if source not in ids]
    known += [model for model in missing if model.tensors is not None]
    if not known:
        return None
    for other in known[1:]:
        check_agreement(known[0], other, aligned=aligned)
    return _Away(dict(zip(ids, folders(list(ids.values()), weights=False), strict=True)), known[0].tensors)


def _vocabulary(found: Configuration, called: Mapping[Reference, str], base: Reference | None) -> dict[str, Any]:
    """The run's settings of vocabularies.

    Args:
        found: the configuration.
        called: model that is merged → its name.
        base: the run's base.

    Raises:
        MergingError: the vocabulary is another model's.
    """
    if found.tokenizer is None:
        return {}
    source = found.tokenizer.source
    if source == "base":  # without a base, mergekit's is the first of its models
        source = found.base or found.entries[0].model
    if isinstance(source, Reference):
        if source != base and source not in called:
            raise found.tokenizer.said.wrong(f"is {source}, which is none of the models of this merge")
        source = "base" if source == base else _vocabulary_of(found.tokenizer.said, called[source], called.values())
    multiple = found.tokenizer.multiple
    return {"tokenizer_source": source} | ({} if multiple is None else {"pad_to_multiple_of": multiple})


def _vocabulary_of(said: Document, name: str, names: Iterable[str]) -> str:
    """The setting for a model's vocabulary: its name, unless that is a word of the setting and means something else.

    Raises:
        MergingError: it is such a word, and the model has no other.
    """
    if name in VOCABULARIES and name == min(names, key=natural_key):
        return FIRST
    if name in VOCABULARIES:
        raise said.wrong(f"is a model called '{name}', a word that means another vocabulary here; rename its folder")
    return name


def _opened(
    places: Mapping[Reference, Path], under: str | None, vocabulary: Mapping[str, Any]
) -> Mapping[str, TensorInfo]:
    """The tensors of models that are here, which fit together.

    Raises:
        MergingError: they do not.
    """
    return ModelPool.open(list(places.values()), under, **vocabulary).tensors


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

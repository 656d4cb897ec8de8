"""Which architecture checkpoints are: what files say, then what the tensors say; each guess is built and compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from merging.errors import MergingError
from merging.looking.guessing.building import tensors_of
from merging.looking.guessing.facts import Said, said_of
from merging.looking.guessing.pools import FoundPool
from merging.looking.guessing.proving import SIDES, Architecture, proven, takes_side, with_side
from merging.looking.guessing.signature import hinted, index, is_tower, signature
from merging.models.catalogue import model_source
from merging.models.spelling import divided, with_arguments
from merging.plugins.progress import Progress, Silent
from merging.storage.pool import ModelPool
from merging.values.partition import TensorInfo

LIBRARIES = ("timm", "torchvision", "open_clip")
"""Sources of which an architecture is looked for, in this order where several fit."""

BY_TENSORS = "found by names and shapes of all its tensors"


def architectures(
    pool: FoundPool, wanted: str | None = None, progress: Progress | None = None
) -> tuple[list[Architecture], list[str]]:
    """The architectures that fit checkpoints, the likeliest first.

    Where a file says the architecture, and its tensors agree, nothing else is looked for.

    Args:
        pool: the checkpoints.
        wanted: what the user says.
        progress: told what is looked for.

    Returns:
        The architectures, and why names that were said do not fit.
    """
    progress = progress or Silent()
    first, wrong = pool.first, list[str]()
    said = [Said(name=wanted, where="given")] if wanted else list(said_of(pool.models[0]))
    for each in said:
        fits = dict[str, Architecture]()  # library → what fits, as it was said rather than plain
        for spec in _specs(each, wanted is not None):
            try:
                fits.setdefault(spec.partition(":")[0], proven(spec, first, each.where, each.settings))
            except MergingError as error:
                wrong.append(f"{spec} ({each.where}): {error}")
        if fits:
            return list(fits.values()), wrong
    if wanted:
        return [], wrong
    progress.stage("finding the architecture by the tensors' names and shapes")
    found = _by_tensors(pool.tensors, first)
    found = found or list(_new_ones(pool.tensors, first, progress))
    words = " ".join(str(checkpoint.path).lower() for checkpoint in pool.models[:3])
    return sorted(found, key=lambda each: _rank(each, words)), wrong


def _specs(said: Said, typed: bool) -> list[str]:
    """The names that what was said may mean, with their libraries; with the arguments first that were said."""
    base, arguments = divided(said.name)
    given = {**said.arguments, **arguments}
    if typed:
        return [said.name]
    library, colon, name = base.rpartition(":") if base.startswith(LIBRARIES) else ("", "", base)
    if base.startswith("transformers:"):
        return [base]
    if ":" in name:
        return []
    name = name.rpartition("/")[2]
    known = [library] if colon else [each for each in LIBRARIES if {name, name.partition(".")[0]} & _known(each)]
    specs = [with_arguments(f"{each}:{name}", given) for each in known if given and _writable(given)]
    return [*specs, *(f"{each}:{name}" for each in known)]


def _writable(arguments: Mapping[str, Any]) -> bool:
    try:
        with_arguments("x:y", arguments)
    except MergingError:
        return False
    return True


def _known(library: str) -> frozenset[str]:
    """Names of a library's models."""
    if library == "timm":
        import timm

        return frozenset(timm.list_models())
    if library == "torchvision":
        from torchvision import models

        return frozenset(models.list_models(module=models))
    import open_clip

    return frozenset(open_clip.list_models())


def _by_tensors(tensors: Mapping[str, TensorInfo], first: ModelPool) -> list[Architecture]:
    """What the index names, as far as it fits; also where a head was pooled in another way.

    Those that were made for such images go before those that are built for another size than their own.
    """
    specs = [with_arguments(name, given) for named, given in _variants(tensors) for name in hinted(named)]
    for resized in (False, True):
        found = [each for spec in specs if (each := _fitting(spec, first, resized=resized)) is not None]
        if found:
            return found
    sources = [source for spec in specs[:4] if takes_side(source := model_source(spec))]
    for side in SIDES:
        sized = [with_side(source, side).spec for source in sources]
        found = [each for spec in sized if (each := _fitting(spec, first, resized=False)) is not None]
        if found:
            return found
    return []


def _fitting(spec: str, first: ModelPool, *, resized: bool) -> Architecture | None:
    """The architecture where it fits, None where it does not."""
    try:
        return proven(spec, first, BY_TENSORS, resized=resized)
    except MergingError:
        return None


def _variants(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[Mapping[str, TensorInfo], dict[str, Any]]]:
    """The tensors as they are named, and as they would be by default, with the argument that makes the difference."""
    yield tensors, {}
    swaps = (({"fc_norm": "norm"}, {"global_pool": "avg"}), ({"norm": "fc_norm"}, {"global_pool": "token"}))
    for names, arguments in swaps:
        renamed = {_swapped(name, names): info for name, info in tensors.items()}
        if list(renamed) != list(tensors) and len(renamed) == len(tensors):
            yield renamed, arguments


def _swapped(name: str, names: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return names.get(first, first) + dot + rest


def _new_ones(tensors: Mapping[str, TensorInfo], first: ModelPool, progress: Progress) -> Iterator[Architecture]:
    """Models of the installed libraries that the index lacks: all of them are built."""
    own = signature(tensors)
    for library in ("open_clip",) if is_tower(tensors) else ("timm", "torchvision"):
        indexed = {name for names in index().get(library, {}).values() for name in names}
        fresh = sorted(_known(library) - indexed)
        progress.stage(f"looking through {len(fresh)} new models of {library}", len(fresh))
        for name in fresh:
            progress.advance()
            try:
                if signature(tensors_of(model_source(f"{library}:{name}"))) == own:
                    yield proven(f"{library}:{name}", first, BY_TENSORS)
            except MergingError:
                continue


def _rank(found: Architecture, words: str) -> tuple[Any, ...]:
    """What makes one the likelier: its name in the files' names, no arguments, the first library, the plainest name."""
    library, _, rest = found.spec.partition(":")
    name, _ = divided(rest) if "(" not in rest else (rest.partition("(")[0], {})
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    named = plain in re.sub(r"[^a-z0-9]", "", words)
    return (-len(plain) if named else 0, "(" in rest, LIBRARIES.index(library), len(name), name)


def distinct(found: Iterable[Architecture]) -> list[Architecture]:
    """Drops architectures that compute what an earlier one does, by layers and preparation of pictures."""
    kept, seen = list[Architecture](), set[object]()
    for each in found:
        transform = each.source.transform() if not getattr(each.source, "tokens", None) else None
        key = (each.layers, None if transform is None else repr(sorted(_flat(transform.settings))))
        if key not in seen:
            seen.add(key)
            kept.append(each)
    return kept


def _flat(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key}={value}"

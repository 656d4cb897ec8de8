"""Which architecture checkpoints are: what files say, then what the tensors say; each guess is built and compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import MergingError
from merging.forward.fitting import check_fits
from merging.looking.guessing.building import built_for, tensors_of
from merging.looking.guessing.facts import Said, said_of
from merging.looking.guessing.pools import FoundPool
from merging.looking.guessing.signature import hinted, index, is_tower, signature
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.models.spelling import divided, with_arguments
from merging.models.zero_shot import has_text_tower
from merging.plugins.progress import Progress, Silent
from merging.storage.pool import ModelPool
from merging.values.partition import TensorInfo

LIBRARIES = ("timm", "torchvision", "open_clip")
"""Sources of which an architecture is looked for, in this order where several fit."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture that has exactly the checkpoints' tensors.

    Attributes:
        spec: its name, as merge.toml takes it: ``timm:resnet18``.
        why: says how it was found.
        classes: number of its outputs; None: a whole CLIP, whose classes have names only.
        layers: text that is the same for two that compute the same from one input, apart from arithmetic in code.
        settings: what the files say of pictures: ``mean``, ``std``, ``size``.
        proven: whether its tensors were compared.
    """

    spec: str
    why: str
    classes: int | None
    layers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> ModelSource:
        """Gives what the name stands for."""
        return model_source(self.spec)


def architectures(
    pool: FoundPool, wanted: str | None = None, progress: Progress | None = None
) -> tuple[list[Architecture], list[str]]:
    """The architectures that fit checkpoints, the likeliest first.

    Where a file says the architecture, and its tensors agree, there is that one alone.

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
        for spec in _specs(each, wanted is not None):
            try:
                fits = [found for found in _tried(spec, first, each.where, each.settings)]
            except MergingError as error:
                wrong.append(f"{spec} ({each.where}): {error}")
                continue
            if fits:
                return fits[:1], wrong
    if wanted:
        return [], wrong
    progress.stage("finding the architecture by the tensors' names and shapes")
    found = _by_tensors(pool.tensors, first)
    found = found or list(_new_ones(pool.tensors, first, progress))
    words = " ".join(str(checkpoint.path).lower() for checkpoint in pool.models[:3])
    return sorted(found, key=lambda each: _rank(each, words)), wrong


def _specs(said: Said, typed: bool) -> list[str]:
    """The names that what was said may mean, with their libraries."""
    base, arguments = divided(said.name)
    if ":" in base:
        library = base.partition(":")[0]
        return [said.name] if typed or library in (*LIBRARIES, "transformers") else []
    name = base.rpartition("/")[2]
    known = [library for library in LIBRARIES if name.partition(".")[0] in _known(library) or name in _known(library)]
    given = {**said.arguments, **arguments}
    specs = [with_arguments(f"{library}:{name}", given) for library in known if _writable(given)]
    return list(dict.fromkeys([*specs, *(f"{library}:{name}" for library in known)]))


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
        found = list[Architecture]()
        for spec in specs:
            try:
                found += _tried(spec, first, "by names and shapes of all tensors", {}, resized=resized)
            except MergingError:
                continue
        if found:
            return found
    return []


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
                    yield from _tried(f"{library}:{name}", first, "by names and shapes of all tensors", {})
            except MergingError:
                continue


def _tried(
    spec: str, first: ModelPool, why: str, settings: Mapping[str, Any], *, resized: bool = True
) -> Iterator[Architecture]:
    """The architecture, where its tensors agree: as it is, or built for images of another size.

    Raises:
        MergingError: it does not fit, and which tensor is the first that does not.
    """
    source = model_source(spec)
    try:
        yield _proven(source, first, why, settings)
        return
    except MergingError as error:
        refused = error
    sized = _sized(source, first) if resized else None
    if sized is None:
        raise refused
    yield _proven(sized, first, f"{why}; built for images of another size", settings)


def _proven(source: ModelSource, first: ModelPool, why: str, settings: Mapping[str, Any]) -> Architecture:
    """Builds it and compares every tensor.

    Raises:
        MergingError: it does not fit.
    """
    if source.spec.startswith("open_clip:") and "classification_head.weight" not in first.tensors:
        if not has_text_tower(first.tensors):
            check_fits(built_for(source, first), first)  # says what is missing
        named = source.named(("one", "two"))  # the text tower makes a head of any names
        check_fits(named.build(first), first)
        return Architecture(spec=source.spec, why=f"{why}; a whole CLIP", classes=None, settings=settings)
    module = built_for(source, first)
    check_fits(module, first)
    heads = source.heads(first.tensors)
    name = next((name for name in heads if name in first.tensors), None)
    classes = None if name is None else first.tensors[name][0][heads[name]]
    layers = f"{type(module).__module__}.{type(module).__qualname__} {module!r}"
    return Architecture(spec=source.spec, why=why, classes=classes, layers=layers, settings=settings)


_POSITIONS = re.compile(r"(^|\.)(pos_embed|pos_embedding|positional_embedding|position_embeddings)$")


def _sized(source: ModelSource, first: ModelPool) -> ModelSource | None:
    """The same architecture built for the images that its table of positions is made for; None: no such size."""
    library = source.spec.partition(":")[0]
    argument = {"timm": "img_size", "torchvision": "image_size", "open_clip": "force_image_size"}.get(library)
    if argument is None or source.sides is None or argument in source.arguments:
        return None
    state = built_for(source, first).state_dict()
    for name, tensor in state.items():
        if not _POSITIONS.search(name) or name not in first.tensors:
            continue
        if library == "open_clip" and "visual" not in name:  # the text tower's
            continue
        own = first.tensors[name][0]
        for side in _sides(tuple(tensor.shape), own, source.sides[0]):
            name, arguments = divided(source.spec)
            return model_source(with_arguments(name, {**arguments, argument: side}))
    return None


def _sides(default: tuple[int, ...], own: tuple[int, ...], side: int) -> Iterator[int]:
    """Sides of square images with so many positions, where the default has so many at a known side.

    >>> list(_sides((1, 197, 192), (1, 17, 192), 224))
    [64]
    """
    axes = [axis for axis, (a, b) in enumerate(zip(default, own, strict=False)) if a != b]
    if len(default) != len(own) or not axes:
        return
    if len(axes) == 2 and own[axes[0]] == own[axes[1]]:  # a map of positions
        yield side * own[axes[0]] // default[axes[0]]
        return
    for extra in (0, 1, 2, 5, 4):  # tokens besides the patches: class, distillation, registers
        before, after = _root(default[axes[0]] - extra), _root(own[axes[0]] - extra)
        if before and after and side % before == 0:
            yield after * (side // before)
            return


def _root(number: int) -> int | None:
    """The whole square root of a number, None where there is none."""
    root = int(max(number, 0) ** 0.5 + 0.5)
    return root if root > 0 and root * root == number else None


def _rank(found: Architecture, words: str) -> tuple[Any, ...]:
    """What makes one the likelier: its name in the files' names, no arguments, the first library, the plainest name."""
    library, _, rest = found.spec.partition(":")
    name, _ = divided(rest) if "(" not in rest else (rest.partition("(")[0], {})
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    named = plain in re.sub(r"[^a-z0-9]", "", words)
    return (-len(plain) if named else 0, "(" in rest, LIBRARIES.index(library), len(name), name)


def distinct(found: Iterable[Architecture]) -> list[Architecture]:
    """Those that compute something else than the ones before them, by layers and preparation of pictures."""
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


def folder_of(found: Architecture) -> Path | None:
    """The folder that a ``transformers:`` architecture is read from; None for others."""
    return Path(found.spec.partition(":")[2]) if found.spec.startswith("transformers:") else None

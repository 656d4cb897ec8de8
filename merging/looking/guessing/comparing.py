"""Which guesses are put to the test, and in which order: architectures, then sizes and normalisations of the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from merging.data.text import takes_texts
from merging.errors import MergingError
from merging.looking.guessing import trying, variants
from merging.looking.guessing.pools import FoundPool
from merging.looking.guessing.proving import Architecture
from merging.looking.guessing.trying import Tried
from merging.plugins.progress import Progress

ARCHITECTURES = 4
"""Architectures that are tried at most."""


def tries(
    pool: FoundPool,
    candidates: Sequence[Architecture],
    keys: Mapping[str, Any],
    progress: Progress,
) -> list[Tried]:
    """One model scored under each guess, the likeliest first.

    A guess that does not go together with the data is left out; where no architecture does, nothing is tried.

    Args:
        pool: the models, of which the first is scored.
        candidates: architectures that fit, the likeliest first.
        keys: keys of a [task] that are known: ``held_out``, perhaps ``classes``, ``mean``, ``std``, ``size``.
        progress: told how far this is.
    """
    first, done = pool.first, list[Tried]()

    def add(guesses: Iterable[tuple[str, dict[str, Any]]], table: Mapping[str, Any]) -> None:
        for said, more in guesses:
            count = len(done[0].hits) if done else None
            try:
                found = trying.scored(first, {**table, **more}, said, samples=count, progress=progress)
            except MergingError as error:
                progress.say(f"{said} was not tried: {error}")
                continue
            done.append(found)

    add(((each.spec, {"model": each.spec}) for each in candidates[:ARCHITECTURES]), keys)
    if not done:
        return []
    best = trying.best_of(done)
    source, outputs = next((each.source, each.classes) for each in candidates if each.spec == best.keys["model"])
    if outputs is not None and len(keys.get("classes", ())) not in (0, outputs):
        return done  # labels may be wrong: nothing about pixels can be learned by them
    sized = [] if "size" in keys else list(variants.sizes(source, keys["held_out"]))
    add(sized, best.keys)
    if "mean" not in keys and not takes_texts(source):
        for said, more in [("", {}), *sized]:
            others = [(f"{said}, {name}" if said else name, pixels) for name, pixels in variants.normalisations(source)]
            add(others, {**best.keys, **more})
    return done

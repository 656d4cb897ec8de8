"""Models of the Hub that a look at a pool would have to fetch first: what their headers tell, instead."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from merging.errors import MergingError
from merging.storage.agreement import check_agreement
from merging.storage.hub.ahead import Ahead, ahead, said
from merging.storage.hub.spelling import HubId, as_id
from merging.storage.ingredients import is_model, things_in
from merging.storage.pool import ModelPool
from merging.storage.sources import divided

if TYPE_CHECKING:
    from merging.storage.ingredients import Model, Models

LATER = "merge run fetches them, and so does hf download"


def absent(models: ModelPool | Models, base: Model | None) -> list[Ahead]:
    """The models, and the base, whose weights are large and not on this machine; nothing large is fetched.

    What cannot be had is left out: it is said where it is opened.

    Args:
        models: the pool, or what is named; of a pool that is open nothing is away.
        base: the model that they were fine-tuned from, or its name.
    """
    found = list[Ahead]()
    own = [] if isinstance(models, ModelPool) else [thing for _, thing in things_in(models)]
    for asked in dict.fromkeys((*_ids(own), *_ids([base]))):
        with contextlib.suppress(MergingError):
            found += ahead([asked])
    return found


def disagreements(away: Sequence[Ahead], models: Models, *, aligned: bool = False) -> list[str]:
    """Says in which names, shapes or dtypes the models differ by their headers, so that they are no pool.

    Args:
        away: the models.
        models: what is named.
        aligned: whether their rows are still to be aligned by token.
    """
    meant = set(_ids(thing for _, thing in things_in(models)))
    known = [model for model in away if model.tensors is not None and model.asked in meant]
    wrong = []
    for model in known[1:]:
        try:
            check_agreement(known[0], model, aligned=aligned)
        except MergingError as error:
            wrong.append(str(error))
    return wrong


def rest(models: Models, away: Sequence[Ahead]) -> Any:
    """The models that are on this machine, named as they were given."""
    ids = {model.asked for model in away}
    if isinstance(models, Mapping):
        return {name: thing for name, thing in models.items() if not ids & set(_ids([thing]))}
    return [thing for _, thing in things_in(models) if not ids & set(_ids([thing]))]


def numbers(model: Ahead) -> tuple[int, int, tuple[str, ...]]:
    """Counts the tensors and parameters of a model, and names their dtypes, as far as its headers were read."""
    tensors = (model.tensors or {}).values()
    dtypes = tuple(sorted({dtype for _, dtype in tensors}))
    return len(tensors), sum(math.prod(shape) for shape, _ in tensors), dtypes


def told(found: Sequence[Ahead]) -> str:
    """Says what was not looked at, and why."""
    return f"{said(found)}: listings and headers were looked at, not their numbers, nor what a run costs; {LATER}"


def _ids(things: Iterable[Any]) -> Iterator[HubId]:
    for thing in things:
        if thing is None or is_model(thing):
            continue
        try:
            found = as_id(divided(thing)[0])
        except MergingError:  # said where it is opened
            continue
        if found is not None:
            yield found

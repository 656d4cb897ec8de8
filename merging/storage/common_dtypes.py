"""Models that hold the same tensors in several floating-point dtypes: seen in one that holds the numbers of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import common_dtype
from merging.values.recipe import Dtypes
from merging.values.wording import plural


def in_common_dtypes(models: Sequence[Checkpoint], pool: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
    """Sees models of a pool tensor by tensor in the narrowest dtype that holds the numbers of the whole pool, exactly.

    A model that has those dtypes is given as it is; so is one that was seen in others, where the pool needs none.

    Args:
        models: the models to see so.
        pool: all models, with the base.
    """
    stored = [model.as_stored for model in pool]
    wanted = dict[str, str]()
    for name, (_, dtype) in stored[0].tensors.items():
        found = {other.tensors[name][1] for other in stored if name in other.tensors}
        if found != {dtype} and (common := common_dtype(found)) is not None:  # else the pool is refused
            wanted[name] = common
    for model in models:
        own = model.as_stored
        yield own.seen_in({name: dtype for name, dtype in wanted.items() if name in own.tensors})


def told(dtypes: Dtypes, models: Sequence[Checkpoint], base: Checkpoint | None) -> tuple[str, ...]:
    """Says in which dtypes models are stored, merged, and written; nothing where all have the same.

    Args:
        dtypes: rows of the tensors that models hold in several: name, dtype of the sum, dtype of the result.
        models: all models, with the base.
        base: the model that they were fine-tuned from, where known.
    """
    if not dtypes:
        return ()
    kinds = defaultdict[str, list[str]](list)
    for model in models:
        stored = "/".join(sorted({model.stored[name][1] for name, *_ in dtypes}))
        kinds[stored].append("the base" if model is base else model.name)
    held = [
        f"{dtype}: {names[0] if len(names) == 1 else plural(len(names), 'model')}" for dtype, names in kinds.items()
    ]
    sums, results = ("/".join(sorted({row[place] for row in dtypes})) for place in (1, 2))
    whose = "the base's dtype" if base is not None else "the first model's dtype"
    return (
        f"dtypes differ in {plural(len(dtypes), 'tensor')} ({', '.join(held)}): merged in {sums}, which holds all "
        f"exactly; written in {results}, {whose}, unless `dtype` says another",
    )

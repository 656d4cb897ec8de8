"""How a merged model is written: format, dtype, shards; streamed where the format allows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from merging.errors import OptionError, unknown
from merging.mixing.output import InMemory, Nowhere, Writer
from merging.mixing.streaming import Settled, settled, stream
from merging.plugins.progress import Progress, Silent
from merging.storage.dtypes import SAFETENSORS, is_floating
from merging.storage.folder import MEMBERS, MODELS, carry, save_model, write_ensemble
from merging.storage.pool import ModelPool
from merging.storage.shards import ModelWriter, parse_size
from merging.values.partition import TensorInfo
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = tuple(name for name in SAFETENSORS.values() if is_floating(name))
ACCUMULATE = ("float64", "float32")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        merge: the merge, with the hashes of its ingredients that are known now.
        hash: the content hash of the model; of an ensemble, a hash of members and weights.
        negative: layers whose running variance is negative somewhere.
    """

    merge: Merge
    hash: str
    negative: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writing:
    """Format, dtype (None: the inputs'), precision of sums and bytes a shard (None: one file)."""

    format: str = "safetensors"
    dtype: str | None = None
    accumulate: str = "float64"
    max_shard_size: int | None = None

    @classmethod
    def of(cls, format: str, dtype: str | None, accumulate: str, max_shard_size: str | None) -> Writing:
        """Checks what a user asked for.

        Raises:
            OptionError: an unknown name, no size, or shards of a format that has none.
        """
        for what, value, known in (("dtype", dtype, DTYPES), ("precision of sums", accumulate, ACCUMULATE)):
            if value is not None and value not in known:
                raise OptionError(str(unknown(what, value, known)))
        if format not in MODELS:
            raise OptionError(str(unknown("format", format, MODELS)))
        if format != "safetensors" and (max_shard_size is not None or accumulate != "float64"):
            raise OptionError("--max-shard-size and --accumulate are for safetensors; leave out --format pt")
        return cls(format, dtype, accumulate, parse_size(max_shard_size) if max_shard_size is not None else None)

    def tensors(self, pool: ModelPool) -> dict[str, TensorInfo]:
        """Name → (shape, dtype name) of what is written."""
        return {
            name: (shape, self.dtype if self.dtype is not None and name in pool.mixable else dtype)
            for name, (shape, dtype) in pool.tensors.items()
        }

    def model(
        self,
        merged: Recipe | Weights,
        pool: ModelPool,
        aside: Path | None,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> Written:
        """Writes the model into a folder. Without one, only its hash is found.

        Raises what :func:`merging.mixing.streaming.stream` raises.
        """
        tensors = self.tensors(pool)
        if aside is None:
            found = self._stream(merged, pool, Nowhere(tensors), progress, should_stop)
        elif self.format == "safetensors":
            with ModelWriter(aside, tensors, self.max_shard_size) as writer:
                found = self._stream(merged, pool, writer, progress, should_stop)
        else:
            memory = InMemory(tensors)
            found = self._stream(merged, pool, memory, progress, should_stop)
            progress.stage("writing the result")
            save_model(aside / MODELS[self.format], _ordered(memory, merged, pool), self.format, pool.ties)
        known = settled(merged, pool, found)
        pool.settle(found.hashes)
        if aside is not None:
            carry(pool.base or pool.checkpoints[0], aside, self.dtype)
        return Written(known, found.hash, found.negative)

    def _stream(
        self,
        merged: Recipe | Weights,
        pool: ModelPool,
        writer: Writer,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> Settled:
        return stream(merged, pool, writer, progress, accumulate=self.accumulate, should_stop=should_stop)

    def ensemble(
        self, merged: Ensemble, pool: ModelPool, aside: Path | None, progress: Progress, should_stop: Callable[[], bool]
    ) -> Written:
        """Writes an ensemble's members, a folder each, and what says how they are averaged.

        Raises what :meth:`model` raises.
        """
        entries, negative = list[dict[str, Any]](), dict[str, None]()
        for number, (member, weight) in enumerate(zip(merged.members, merged.weights, strict=True), 1):
            place = f"{MEMBERS}/{number:0{len(str(len(merged.members)))}}"
            if aside is not None:
                (aside / place).mkdir(parents=True)
            found = self.model(member, pool, aside / place if aside is not None else None, progress, should_stop)
            negative |= dict.fromkeys(found.negative)
            entries.append(
                {
                    "folder": place,
                    "name": "+".join(member.names),
                    "weight": weight,
                    "hash": found.hash,
                    "recipe": member.to_json(),
                }
            )
        if aside is not None:
            write_ensemble(aside, merged.average, entries)
        facts = [merged.average, [[entry["hash"], float(entry["weight"]).hex()] for entry in entries]]
        return Written(merged, blake3(json.dumps(facts).encode()).hexdigest(), tuple(negative))

    def state_dict(self, merged: Recipe | Weights, pool: ModelPool) -> dict[str, Tensor]:
        """The merged model's tensors, all in memory. Raises what :meth:`model` raises."""
        memory = InMemory(self.tensors(pool))
        stream(merged, pool, memory, Silent(), accumulate=self.accumulate)
        return _ordered(memory, merged, pool)


def _ordered(memory: InMemory, merged: Recipe | Weights, pool: ModelPool) -> dict[str, Tensor]:
    """A recipe's tensors in the order of its first ingredient, others in the pool's."""
    state = memory.state_dict()
    return (
        {name: state[name] for name in pool.find(merged.ingredients[0]).tensors}
        if isinstance(merged, Recipe)
        else state
    )

"""How a merged model is written: format, dtype, shards; streamed where the format allows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from merging.errors import OptionError, unknown
from merging.mixing.streaming import settled, stream
from merging.plugins.progress import Progress
from merging.storage.content import content_hash
from merging.storage.dtypes import SAFETENSORS
from merging.storage.folder import MEMBERS, MODELS, carry, save_model, write_ensemble
from merging.storage.pool import ModelPool
from merging.storage.shards import ModelWriter, parse_size
from merging.values.partition import TensorInfo
from merging.values.recipe import Ensemble, Recipe, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = tuple(name for name in SAFETENSORS.values() if "float" in name)
ACCUMULATE = ("float64", "float32")


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

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype asked for."""
        import torch

        return None if self.dtype is None else getattr(torch, self.dtype)

    def tensors(self, pool: ModelPool) -> dict[str, TensorInfo]:
        """Name → (shape, dtype name) of what is written."""
        return {
            name: (shape, self.dtype if self.dtype is not None and name in pool.mixable else dtype)
            for name, (shape, dtype) in pool.tensors.items()
        }

    def model(
        self, merged: Recipe | Weights, pool: ModelPool, aside: Path | None, progress: Progress,
        should_stop: Callable[[], bool],
    ) -> tuple[Recipe | Weights, str]:  # fmt: skip
        """Writes the model into a folder and returns the merge, with the hashes that are known now, and its own.

        Without a folder, only the hash is found. Raises what :func:`merging.mixing.streaming.stream` raises.
        """
        if aside is not None and self.format == "safetensors":
            with ModelWriter(aside, self.tensors(pool), self.max_shard_size) as writer:
                found = stream(merged, pool, writer, progress, accumulate=self.accumulate, should_stop=should_stop)
            known = settled(merged, pool, found)
            pool.settle(found.hashes)
            carry(pool.base or pool.checkpoints[0], aside, self.dtype)
            return known, found.hash
        progress.stage("building the merged model")
        state = self.state_dict(merged, pool)
        if aside is not None:
            progress.stage("writing the result")
            save_model(aside / MODELS[self.format], state, self.format, pool.ties)
            carry(pool.base or pool.checkpoints[0], aside, self.dtype)
        return merged, content_hash(state)

    def ensemble(
        self, merged: Ensemble, pool: ModelPool, aside: Path | None, progress: Progress, should_stop: Callable[[], bool]
    ) -> tuple[Ensemble, str]:
        """Writes an ensemble's members, a folder each, and what says how they are averaged.

        Returns the ensemble and a hash of members and weights. Raises what :meth:`model` raises.
        """
        entries: list[dict[str, Any]] = []
        for number, (member, weight) in enumerate(zip(merged.members, merged.weights, strict=True), 1):
            place = f"{MEMBERS}/{number:0{len(str(len(merged.members)))}}"
            if aside is not None:
                (aside / place).mkdir(parents=True)
            _, digest = self.model(member, pool, aside / place if aside is not None else None, progress, should_stop)
            entries.append({
                "folder": place, "name": "+".join(member.names), "weight": weight, "hash": digest,
                "recipe": member.to_json(),
            })  # fmt: skip
        if aside is not None:
            write_ensemble(aside, merged.average, entries)
        facts = [merged.average, [[entry["hash"], float(entry["weight"]).hex()] for entry in entries]]
        return merged, blake3(json.dumps(facts).encode()).hexdigest()

    def state_dict(self, merged: Recipe | Weights, pool: ModelPool) -> dict[str, Tensor]:
        """The merged model's tensors, all in memory."""
        from merging.mixing.arithmetic import materialise

        if isinstance(merged, Recipe):
            return materialise(merged, pool, self.torch_dtype)
        wanted = dict.fromkeys(pool.mixable, self.torch_dtype)
        return {name: tensor.to(wanted.get(name) or tensor.dtype) for name, tensor in merged.tensors.items()}

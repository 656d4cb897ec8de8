"""How a merged model is written: format, dtype, shards; streamed where the format allows it.

The declaration of the settings is read by ``--help``; what writes is imported where it is used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError, RecipeError
from merging.plugins.options import Declared, Setting, option
from merging.storage.dtypes import FORMATS, SAFETENSORS, is_floating

if TYPE_CHECKING:
    from torch import Tensor

    from merging.mixing.output import InMemory, Writer
    from merging.mixing.streaming import Settled
    from merging.plugins.progress import Progress
    from merging.storage.pool import ModelPool
    from merging.values.partition import TensorInfo
    from merging.values.recipe import Ensemble, Merge, Recipe, Weights

DTYPES = tuple(name for name in SAFETENSORS.values() if is_floating(name))
ACCUMULATE = ("float64", "float32")


@dataclass(frozen=True)
class Written:
    """A merge as it was written, with the hashes that are known since.

    Attributes:
        merge: the merge, with the hashes of its ingredients that are known now.
        hash: the content hash of the model; of an ensemble, a hash of members and weights.
        negative: layers whose running variance is negative somewhere.
        notes: sentences about what was written, such as what an adapter leaves out of the merge.
        whole: whether it is all of the merge, whose scores are its own then.
    """

    merge: Merge
    hash: str
    negative: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class Writing(Declared):
    """The way in which a merged model is written: format, dtype, precision of sums, size of shards.

    Raises:
        OptionError: an unknown name, no size, or shards of a format that has none.
    """

    format: str = option("safetensors", "Format of the model file.", choices=FORMATS, setting=Setting())
    dtype: str | None = option(
        None,
        "Dtype of the merged tensors, such as bfloat16.",
        choices=DTYPES,
        setting=Setting(
            metavar="NAME", default="the inputs'", changes=True, more="The floating-point ones; others keep theirs."
        ),
    )
    accumulate: str = option(
        "float64",
        "Precision of sums: float64 or float32.",
        choices=ACCUMULATE,
        setting=Setting(metavar="NAME", silent=True, more="It is that of the result as it is written, not of scores."),
    )
    max_shard_size: str | None = option(
        None,
        "Write several files of at most SIZE, such as 5GB.",
        setting=Setting(metavar="SIZE", more="With an index, as Hugging Face has it; 500MiB is a size, too."),
    )

    written_as: str = option(
        "model",
        "Write a full model, or an adapter of its base.",
        choices=("model", "adapter"),
        setting=Setting(
            flag="as",
            metavar="KIND",
            more="Of a linear merge of adapters it is exact: their factors one beside the other.",
        ),
    )
    rank: int | None = option(
        None,
        "Largest rank of that adapter's updates.",
        low=1,
        setting=Setting(
            metavar="R",
            default="an exact one's",
            more="The strongest directions are kept; how much of the updates is lost is said.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter and (self.format != "safetensors" or self.max_shard_size is not None):
            raise OptionError("an adapter is one file of safetensors: leave out `format` and `max_shard_size`")
        if self.format != "safetensors" and (self.max_shard_size is not None or self.accumulate != "float64"):
            raise OptionError("`max_shard_size` and `accumulate` are for safetensors; leave out `format=pt`")
        if self.max_shard_size is not None:
            from merging.storage.shards import parse_size

            parse_size(self.max_shard_size)

    @property
    def adapter(self) -> bool:
        """Whether an adapter is written, not a full model."""
        return self.written_as == "adapter"

    @property
    def kind(self) -> str:
        """The kind of file that is written: an adapter, or a format."""
        return "adapter" if self.adapter else self.format

    @property
    def again(self) -> str:
        """The flags, each after a space, with which ``merge apply`` writes the same bits.

        >>> Writing().again, Writing(dtype="bfloat16").again
        ('', ' --dtype bfloat16')
        """
        said = {"dtype": self.dtype, "accumulate": self.accumulate, "as": self.written_as, "rank": self.rank}
        usual = {"dtype": None, "accumulate": "float64", "as": "model", "rank": None}
        return "".join(f" --{flag} {value}" for flag, value in said.items() if value != usual[flag])

    def check(self, pool: ModelPool, gives: str) -> None:
        """Refuses, before any work, an adapter that a merge of these models cannot be.

        Args:
            pool: the models.
            gives: what the strategy gives: ``recipe``, ``weights`` or ``ensemble``.

        Raises:
            OptionError: an ensemble, no base that all have in common, updates without a rank, or a rank alone.
        """
        if not self.adapter:
            if self.rank is not None:
                raise OptionError("`rank` is that of an adapter: add `written_as=adapter`, or leave it out")
            return
        from merging.mixing.adapting import base_for

        if pool.alignment is not None:
            raise OptionError(
                "an adapter stands on its base's own vocabulary: leave out `written_as=adapter`, or `tokenizer_source`"
            )
        if pool.dtypes:
            raise OptionError(
                f"an adapter stands on a base of its models' dtypes, and '{pool.dtypes[0][0]}' has several: leave out "
                "`written_as=adapter`, or save all in one dtype"
            )
        if gives == "ensemble":
            raise OptionError("an ensemble is several models, and no adapter: leave out `written_as=adapter`")
        base_for(pool)
        if self.rank is None:
            other = next((c.name for c in pool.checkpoints if c.adapted is None or c.adapted.config.directions), None)
            if gives != "recipe" or other is not None:
                why = f"'{other}' is no plain LoRA" if other is not None else "the strategy is not linear"
                raise OptionError(f"{why}, so the merge has no rank of its own: give the adapter's `rank`")

    def tensors(self, merged: Recipe | Weights, pool: ModelPool) -> dict[str, TensorInfo]:
        """Name → (shape, dtype name) of what is written.

        Raises:
            RecipeError: it names a dtype that nobody knows.
        """
        said = {name: dtype for name, _, dtype in merged.ingredients[0].dtypes}
        unknown = next((name for name, dtype in said.items() if dtype not in DTYPES), None)
        if unknown is not None:
            raise RecipeError(f"the recipe wants tensor '{unknown}' in '{said[unknown]}', which is no floating dtype")
        return {
            name: (shape, (self.dtype or said.get(name, dtype)) if name in pool.mixable else dtype)
            for name, (shape, dtype) in pool.tensors.items()
        }

    def exact(self, merged: Merge, pool: ModelPool) -> bool:
        """Whether a full model is written with the very bits that were scored: in the dtypes that it was merged in."""
        rows = merged.ingredients[0].dtypes
        return (
            not self.adapter
            and self.dtype is None
            and self.accumulate == "float64"
            and all(pool.tensors[name][1] == dtype for name, _, dtype in rows)
        )

    def write(
        self, merged: Merge, pool: ModelPool, aside: Path | None, progress: Progress, should_stop: Callable[[], bool]
    ) -> Written:
        """Writes whatever a strategy gives: :meth:`model`, or :meth:`ensemble`; raises what these raise."""
        from merging.values.recipe import Ensemble

        if isinstance(merged, Ensemble):
            return self.ensemble(merged, pool, aside, progress, should_stop)
        return self.model(merged, pool, aside, progress, should_stop)

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
        from merging.mixing.output import InMemory, Nowhere
        from merging.mixing.streaming import settled
        from merging.storage.result import MODELS, carry, save_model
        from merging.storage.shards import ModelWriter, parse_size

        if self.adapter and aside is not None:
            return self._adapter(merged, pool, aside, progress, should_stop)
        tensors = self.tensors(merged, pool)
        if aside is None:
            found = self._stream(merged, pool, Nowhere(tensors), progress, should_stop)
        elif self.format == "safetensors":
            with ModelWriter(
                aside, tensors, parse_size(self.max_shard_size) if self.max_shard_size else None
            ) as writer:
                found = self._stream(merged, pool, writer, progress, should_stop)
        else:
            memory = InMemory(tensors)
            found = self._stream(merged, pool, memory, progress, should_stop)
            progress.stage("writing the result")
            save_model(aside / MODELS[self.format], _ordered(memory, merged, pool), self.format, pool.ties)
        known = settled(merged, pool, found)
        pool.settle(found.hashes)
        if aside is not None:
            said = Counter(dtype for _, _, dtype in merged.ingredients[0].dtypes).most_common(1)
            carry(pool.base or pool.checkpoints[0], aside, self.dtype or next((dtype for dtype, _ in said), None))
        return Written(known, found.hash, found.negative)

    def _adapter(
        self,
        merged: Recipe | Weights,
        pool: ModelPool,
        aside: Path,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> Written:
        """Writes an adapter of the pool's base; its hash is that of the base with what was written.

        Raises what :meth:`model` raises, and OptionError where no adapter can hold the merge.
        """
        from merging.mixing.adapting import Adapting, base_for, name_of
        from merging.mixing.streaming import settled
        from merging.storage.checkpoint import Checkpoint

        base = base_for(pool)
        writer = Adapting(merged, pool, base, self.rank, self.dtype)
        found = self._stream(merged, pool, writer, progress, should_stop)
        known = settled(merged, pool, found)
        pool.settle(found.hashes)
        progress.stage("writing the adapter")
        note = writer.finish(aside, name_of(base, pool))
        return Written(known, Checkpoint(aside, base=base).hash, found.negative, (note,), writer.energy.exact)

    def _stream(
        self,
        merged: Recipe | Weights,
        pool: ModelPool,
        writer: Writer,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> Settled:
        from merging.mixing.streaming import stream

        return stream(merged, pool, writer, progress, accumulate=self.accumulate, should_stop=should_stop)

    def ensemble(
        self, merged: Ensemble, pool: ModelPool, aside: Path | None, progress: Progress, should_stop: Callable[[], bool]
    ) -> Written:
        """Writes an ensemble's members, a folder each, and what says how they are averaged.

        Raises what :meth:`model` raises.
        """
        from blake3 import blake3

        from merging.storage.result import MEMBERS, write_ensemble

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
        from merging.mixing.output import InMemory
        from merging.mixing.streaming import stream
        from merging.plugins.progress import Silent

        memory = InMemory(self.tensors(merged, pool))
        stream(merged, pool, memory, Silent(), accumulate=self.accumulate)
        return _ordered(memory, merged, pool)


def _ordered(memory: InMemory, merged: Recipe | Weights, pool: ModelPool) -> dict[str, Tensor]:
    """A recipe's tensors in the order of its first ingredient, others in the pool's."""
    from merging.values.recipe import Recipe

    state = memory.state_dict()
    return (
        {name: state[name] for name in pool.find(merged.ingredients[0]).tensors}
        if isinstance(merged, Recipe)
        else state
    )

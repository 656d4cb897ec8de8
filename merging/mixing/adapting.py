"""A merged model written as an adapter of its base: exact where it is linear in adapters, by singular values elsewhere.

A linear merge of adapters, with coefficients that add up to one, is ``base + Σ cᵢ sᵢ Bᵢ Aᵢ``: the factors one beside
the other are an adapter of the sum of the ranks, and no tensor is decomposed. Of every other update the strongest
directions are kept, as many as the rank (Eckart and Young 1936).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merging.errors import OptionError
from merging.storage.adapter_base import places
from merging.storage.adapter_layout import Layout, Place
from merging.storage.adapter_writer import NewAdapter, Update
from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import is_floating, size_of
from merging.storage.hub.fetching import id_of
from merging.storage.pool import ModelPool
from merging.storage.raw import Raw, as_tensor, in_dtype, same_bits
from merging.values.partition import TensorInfo
from merging.values.recipe import Recipe, Weights
from merging.values.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.float64]


@dataclass
class Energy:
    """The squared length of updates, and how much of it the rank leaves out.

    Attributes:
        whole: sum over all updates.
        lost: sum over the directions that are left out.
        worst: name of the tensor that loses the largest share of its own, and that share.
    """

    whole: float = 0.0
    lost: float = 0.0
    worst: tuple[str, float] = ("", 0.0)

    def add(self, name: str, whole: float, lost: float) -> None:
        """Adds the energy of one tensor's update."""
        self.whole += whole
        self.lost += lost
        share = lost / whole if whole else 0.0
        if share > self.worst[1]:
            self.worst = (name, share)

    @property
    def share(self) -> float:
        """The part of all updates' energy that is left out."""
        return self.lost / self.whole if self.whole else 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing is left out but what rounding makes."""
        return self.share < 1e-12


def base_for(pool: ModelPool) -> Checkpoint:
    """The model that the adapter will stand on: the pool's base, or the one that all its adapters have.

    Raises:
        OptionError: there is none, or it is an adapter itself.
    """
    bases = [c.adapted.base for c in pool.checkpoints if c.adapted is not None]
    base = pool.base if pool.base is not None else bases[0] if len(bases) == len(pool) else None
    if base is None or any(other.path != base.path and other.hash != base.hash for other in bases):
        raise OptionError("`written_as=adapter` needs the one model that all were trained on: give it with `base`")
    if base.adapted is not None:
        raise OptionError(f"`written_as=adapter`: {base.path} is an adapter itself; give the full model as `base`")
    return base


def name_of(base: Checkpoint, pool: ModelPool) -> str:
    """The name by which an adapter knows its base: what all adapters in it say, or its place."""
    said = {c.adapted.config.base: c.adapted.config for c in pool.checkpoints if c.adapted is not None}
    if len(said) == 1 and not places(config := next(iter(said.values()))) and config.base:
        return config.base
    if (of_hub := id_of(base.path) if base.hub else None) is not None:
        return of_hub.repository
    return "" if base.in_memory else str(base.path.absolute())


class Adapting:
    """A writer that takes the merged model, tensor by tensor, and keeps what its base does not have.

    Args:
        merged: the merge.
        pool: the checkpoints that it was made of.
        base: the model that the adapter will stand on.
        rank: the largest rank of an update; None: as large as an exact one needs.
        dtype: dtype of the factors; None: float32.

    Raises:
        OptionError: updates that are not linear in adapters, and no rank.
    """

    def __init__(
        self, merged: Recipe | Weights, pool: ModelPool, base: Checkpoint, rank: int | None, dtype: str | None
    ) -> None:
        self._base, self._rank, self._dtype = base, rank, dtype or "float32"
        self._kinds = {name: kind for name, (_, kind) in pool.tensors.items()}
        adapters = [c.adapted for c in map(pool.find, merged.ingredients) if c.adapted is not None]
        self._layout = Layout(base, adapters)
        self._exact = _linear(merged, pool, base)
        self.energy = Energy()
        self._updates: list[Update] = []
        self._held: dict[str, Tensor | None] = {}  # name → tensor in the base's dtype; None: the base's own
        self._buffer: Raw = np.empty(0, np.uint8)
        self._awkward = self._layout.saved | {
            self._layout.parent(name) for name in pool.tensors if name.rpartition(".")[2] not in ("weight", "bias")
        }
        self.tensors: dict[str, TensorInfo] = {  # what is saved whole, such as embeddings, is taken as it will be
            name: (shape, "float64" if name in pool.mixable and self._is_updated(name) else kind)
            for name, (shape, kind) in pool.tensors.items()
        }

    def write(self, name: str, offset: int, values: Raw) -> None:
        """Takes some elements of a tensor; a tensor that is whole is compared with the base's."""
        size = size_of(self.tensors[name])
        if offset == 0:
            self._buffer = np.empty(size, np.uint8)
        self._buffer[offset : offset + len(values)] = values
        if offset + len(values) == size:
            self._take(name, as_tensor(self._buffer, self.tensors[name][1]).view(self.tensors[name][0]))

    def _take(self, name: str, merged: Tensor) -> None:
        place = self._layout.place(name)
        if place is not None and self._is_updated(name):
            self._update(name, place, merged)
        else:
            rounded = in_dtype(merged, self._kinds[name])
            known = self._base.tensors.get(name) == (tuple(rounded.shape), self._kinds[name])
            same = known and same_bits(rounded, self._base.read(name))
            self._held[name] = None if same else rounded.clone()

    def _update(self, name: str, place: Place, merged: Tensor) -> None:
        """Keeps the update of a tensor, its factors where they are known; nothing where it is the base's own."""
        exact = self._exact(name) if self._exact is not None else None
        if exact is not None:
            self._updates += self._concatenated(name, place, *exact)
            return
        before = self._base.read(name)
        if not same_bits(in_dtype(merged, self._base.tensors[name][1]), before):
            self._updates.append(self._decomposed(name, place, merged.double() - before.double()))

    def _is_updated(self, name: str) -> bool:
        """Whether an update of a tensor is kept, and not the tensor."""
        return self._layout.place(name) is not None and not self._is_below(name)

    def _is_below(self, name: str) -> bool:
        """Whether a tensor may have to be saved whole with what stands beside or above it."""
        parts = self._layout.called(name).split(".")[:-1]
        return any(".".join(parts[:count]) in self._awkward for count in range(1, len(parts) + 1))

    def _concatenated(self, name: str, place: Place, left: Matrix, right: Matrix) -> list[Update]:
        """The factors one beside the other, brought to the rank where they are of a larger one."""
        shape = self._base.tensors[name][0]
        limit = min(left.shape[0], right.shape[1], self._rank or left.shape[1])
        if left.shape[1] > limit:
            (q, small), (p, other) = np.linalg.qr(left), np.linalg.qr(right.T)
            u, values, v = np.linalg.svd(small @ other.T)
            self._lose(name, values, limit)
            root = np.sqrt(values[:limit])
            left, right = (q @ u[:, :limit]) * root, root[:, None] * (p @ v[:limit].T).T
        return [Update(place, shape, left, right)] if left.shape[1] else []

    def _decomposed(self, name: str, place: Place, change: Tensor) -> Update:
        """The strongest directions of an update."""
        if self._rank is None:
            raise OptionError(
                f"the merge is not linear in adapters of one base ('{name}'), so it has no rank of its own: give the "
                "adapter's `rank`"
            )
        matrix: Matrix = change.reshape(len(change), -1).numpy()
        u, values, v = np.linalg.svd(matrix, full_matrices=False)
        self._lose(name, values, self._rank)
        root = np.sqrt(values[: self._rank])
        return Update(place, tuple(change.shape), u[:, : self._rank] * root, root[:, None] * v[: self._rank])

    def _lose(self, name: str, values: Matrix, rank: int) -> None:
        squares = np.square(values)
        self.energy.add(name, float(squares.sum()), float(squares[rank:].sum()))

    def finish(self, folder: Path, base: str) -> str:
        """Writes the adapter's files into a folder.

        Args:
            folder: the place of its files.
            base: name or path of the base, for its configuration.

        Returns:
            A sentence on what was written, and what of the merge it leaves out.

        Raises:
            OptionError: a tensor changed that no adapter can hold.
            OSError: the files cannot be written.
        """
        made = NewAdapter(base=base, dtype=self._dtype, updates=self._updates)
        saved = self._saved()
        for name, tensor in self._held.items():
            called = self._layout.called(name)
            if any(called.startswith(f"{module}.") for module in saved):
                made.whole[called] = self._base.read(name) if tensor is None else tensor
            elif tensor is not None and called.endswith(".bias"):
                made.biases[called] = tensor
            elif tensor is not None:
                place = self._layout.place(name)
                if place is None:
                    raise AssertionError(name)
                self._update(name, place, tensor)
        made.write(folder, saved)
        return self._said(made)

    def _saved(self) -> set[str]:
        """Modules that have to be saved whole: those of the ingredients, and those with changes of another kind.

        Raises:
            OptionError: such a change belongs to no module but the model itself.
        """
        changed = {self._layout.called(name): name for name, tensor in self._held.items() if tensor is not None}
        saved = {module for module in self._layout.saved if any(c.startswith(f"{module}.") for c in changed)}
        for called, name in changed.items():
            if any(called.startswith(f"{module}.") for module in saved):
                continue
            if called.endswith(".bias") or self._layout.place(name) is not None:
                continue
            module = called.rpartition(".")[0]
            if not module:
                raise OptionError(f"tensor '{name}' changes and is no part of a module, which an adapter cannot hold")
            saved.add(module)
        return {module for module in saved if not any(module.startswith(f"{other}.") for other in saved)}

    def _said(self, made: NewAdapter) -> str:
        ranks = sorted({update.left.shape[1] for update in made.updates})
        rank = "–".join(str(rank) for rank in dict.fromkeys([ranks[0], ranks[-1]])) if ranks else "0"
        kept = f", {plural(len(made.whole) + len(made.biases), 'tensor')} whole" if made.whole or made.biases else ""
        text = (
            f"written as an adapter of rank {rank} over {self._base.name}: {plural(len(made.updates), 'update')}{kept}"
        )
        if self.energy.exact:
            return f"{text}; exact: nothing of the merge is left out"
        name, share = self.energy.worst
        return (
            f"{text}; it leaves out {100 * self.energy.share:.2g} % of the updates' energy (squared length), most of "
            f"'{name}' ({100 * share:.2g} %): scores are those of the merge as it was, and the recipe's"
        )


def _linear(
    merged: Recipe | Weights, pool: ModelPool, base: Checkpoint
) -> Callable[[str], tuple[Matrix, Matrix] | None] | None:
    """A function from a tensor's name to the factors of its update, None where it has none; None of other merges."""
    if not isinstance(merged, Recipe):
        return None
    used = [pool.find(ingredient) for ingredient in merged.ingredients]
    columns: Mapping[str, int] = {
        name: column for column, part in enumerate(merged.partition.components) for name in part.tensors
    }

    def factors(name: str) -> tuple[Matrix, Matrix] | None:
        if name in merged.overrides or not is_floating(base.tensors[name][1]):
            return None
        table = merged.coefficients[:, columns[name]]
        if abs(float(table.sum()) - 1.0) > 1e-12:
            return None
        parts = list[tuple[Matrix, Matrix]]()
        for checkpoint, weight in zip(used, table, strict=True):
            if weight == 0.0 or checkpoint is base:
                continue
            found = checkpoint.adapted.factors(name) if checkpoint.adapted is not None else None
            if found is None:
                return None
            parts.append((float(weight) * found[0], found[1]))
        if not parts:
            return None
        return np.concatenate([left for left, _ in parts], axis=1), np.concatenate([right for _, right in parts])

    return factors

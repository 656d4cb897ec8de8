"""How the models of a pool lie to each other: distances, and cosines where the base is known.

One pass over the files: for every component the Gram matrix of the models' differences from a centre, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.shown import Sheet, Shown

_CHUNK = 1 << 20
"""Elements of each model that are compared at a time: bounds memory to models × 8 MiB."""


@dataclass(frozen=True, eq=False, repr=False)
class Geometry(Shown):
    """Distances and angles between the models of a pool, as points in the space of weights.

    Attributes:
        distances: ``‖θ_i − θ_j‖₂`` over all tensors that are averaged, shape ``(n, n)``.
        norm: length of the centre, to compare distances with.
        from_base: ``‖θ_i − base‖``, shape ``(n,)``, where the pool has a base.
        cosines: cosines of the angles between differences from the base, shape ``(n, n)``; NaN for a model that equals
            its base.
        spread: per component, root mean square distance of the models from their mean, relative to the centre's
            length there; shape ``(components,)``.
    """

    distances: NDArray[np.float64]
    norm: float
    from_base: NDArray[np.float64] | None
    cosines: NDArray[np.float64] | None
    spread: NDArray[np.float64]

    def _sheet(self) -> Sheet:
        pairs = 100 * self.distances[np.triu_indices(len(self.distances), 1)] / self.norm
        facts = [f"{len(self.distances)} models"]
        facts += [f"distances {pairs.min():.2f} to {pairs.max():.2f} % of the weights' length"] if len(pairs) else []
        if self.from_base is not None:
            away = 100 * self.from_base / self.norm
            facts.append(f"{away.min():.2f} to {away.max():.2f} % from the base")
        return Sheet(name="Geometry", facts=tuple(facts))


def measure(pool: ModelPool, partition: Partition) -> Geometry:
    """Distances, and cosines where there is a base; every file is read once, a chunk of a tensor at a time.

    The centre is the base, or else the first model: differences are small against the weights, and subtracting first
    keeps their digits.
    """
    n = len(pool)
    grams = np.zeros((len(partition), n, n))
    lengths = np.zeros(len(partition))
    done: set[str] = set()
    tied = {name: group[0] for group in pool.ties for name in group}
    for column, component in enumerate(partition.components):
        for name in component.tensors:
            home = tied.get(name, name)
            if name not in pool.mixable or home in done:
                continue
            done.add(home)
            centre = (pool.base or pool.checkpoints[0]).read(name).reshape(-1)
            members = [checkpoint.read(name).reshape(-1) for checkpoint in pool.checkpoints]
            for start in range(0, len(centre), _CHUNK):
                part = centre[start : start + _CHUNK].double()
                rows = torch.stack([member[start : start + _CHUNK].double() - part for member in members])
                grams[column] += (rows @ rows.T).numpy()
                lengths[column] += float(part @ part)
    gram = grams.sum(0)
    own = np.diag(gram)
    squares = np.maximum(own[:, None] + own[None, :] - 2 * gram, 0.0)
    scatter = np.trace(grams, axis1=1, axis2=2) / n - grams.sum((1, 2)) / n**2
    spread = np.sqrt(np.maximum(scatter, 0.0) / np.where(lengths > 0, lengths, 1.0))
    distances, away = np.sqrt(squares), np.sqrt(own)
    np.fill_diagonal(distances, 0.0)
    if pool.base is None:
        return Geometry(distances, float(np.sqrt(lengths.sum())), None, None, spread)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = gram / np.outer(away, away)
    return Geometry(distances, float(np.sqrt(lengths.sum())), away, cosines, spread)


def kinship(pool: ModelPool) -> NDArray[np.float64]:
    """Cosines between the weights themselves, of the models and, last, the base where there is one.

    Fine-tuned from one model, they are near 1; from independent initialisations near 0 (Neyshabur et al. 2020,
    https://arxiv.org/abs/2008.11687). The largest matrices and filters are looked at, a million elements a model.
    """
    members = pool.with_base
    shapes = {name: shape for name, (shape, _) in pool.tensors.items() if name in pool.mixable and len(shape) > 1}
    gram, left = np.zeros((len(members), len(members))), _CHUNK
    for name in sorted(shapes, key=lambda name: (-math.prod(shapes[name]), name)):
        rows = torch.stack([member.read(name).reshape(-1)[:left].double() for member in members])
        gram += (rows @ rows.T).numpy()
        left -= rows.shape[1]
        if left <= 0:
            break
    lengths = np.sqrt(np.diag(gram))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = np.nan_to_num(gram / np.outer(lengths, lengths), nan=1.0)
    return cosines

"""What docs/results/protocol.md fixes, as values: pools, how they are trained, which methods are compared, and how.

Whoever changes a value here changes the protocol, whose hash stands in every record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.pacs import SWEEP
from merging.errors import unknown

PROTOCOL = Path(__file__).parents[2] / "docs" / "results" / "protocol.md"
RECORDS = PROTOCOL.parent / "soups"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Pools of one network on one kind of data.

    Attributes:
        name: what records call it.
        base: file of the pretrained network in the data folder.
        models: in each pool.
        sweep: hyper-parameters, as ``merge finetune --sweep`` reads them.
        enough: confirming pools, fewer of which allow no claim.
        budget: evaluations of each of manifoldmix's searches.
        protocol: the page whose hash stands in the records.
        edits: whether the exploratory edits and partitions are compared as well.
    """

    name: str
    base: str
    models: int
    sweep: str
    enough: int
    budget: int
    protocol: Path
    edits: bool

    @property
    def compared(self) -> Mapping[str, Mapping[str, str]]:
        """Gives partitioner → method → strategy."""
        if self.edits:
            return COMPARED
        wanted = {"affine", "greedy-ensemble", *PRIMARY}
        return {by: {name: to for name, to in methods.items() if name in wanted} for by, methods in COMPARED.items()}

    def protocol_hash(self) -> str:
        """Hashes the protocol as it stands (SHA-256 of the file's bytes)."""
        return hashlib.sha256(self.protocol.read_bytes()).hexdigest()

    def task(self, pool: Pool, data: Path) -> str:
        """Gives the ``[task]`` of a pool as TOML; ``data`` is the folder of the data."""
        if self.name == "pacs":
            sides = {pool.shifted("photo"), pool.shifted("sketch")}  # on both: sketches of photos are no shift of them
            named = ", ".join(f'"{domain}"' for domain in pool.source)
            related = len(sides) == 2 and pool.part != "replication"
            options = f"source = [{named}], without_sketched = {str(related).lower()}, "
            text = f'name = "pacs"\ndata = "{data / "pacs96.npz"}"\n'
        else:
            options = ""
            text = f'name = "cifar10-shifts"\ndata = "{data}"\nmodel = "python:benchmarks.resnet20:model"\n'
        return f"[task]\n{text}options = {{ {options}split_seed = {pool.split} }}\n"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of the protocol.

    Attributes:
        name: its record's.
        family: the family's name.
        part: ``confirmation``, ``replication`` or ``further``.
        seed: of draws; run k trains with seed + k.
        split: seed of the split into training, held-out and test samples.
        source: domains that it is trained on, where there are several.
    """

    name: str
    family: str
    part: str
    seed: int
    split: int
    source: tuple[str, ...] = ()

    def shifted(self, domain: str) -> bool:
        """Whether a domain is a shift for this pool."""
        return domain not in self.source


PACS = Family(
    name="pacs",
    base="squeezenet1_1_imagenet_backbone.safetensors",
    models=16,
    sweep=SWEEP,
    enough=6,
    budget=60,
    protocol=PROTOCOL,
    edits=True,
)
CIFAR10 = Family(
    name="cifar10",
    base="cifar10_resnet20.safetensors",
    models=12,
    sweep="""\
learning_rate = { low = 2e-4, high = 2e-3, log = true }
weight_decay = [0.0, 0.01, 0.1]
epochs = [1, 2]
batch_size = 128
augmentation = ["flip", "crop", "rand-m5-mstd0.5"]
mixup = [0.0, 0.2]
label_smoothing = [0.0, 0.1]
""",
    enough=4,
    budget=20,
    protocol=PROTOCOL.with_name("protocol-cifar10.md"),
    edits=False,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in (PACS, CIFAR10)}

_KINDS: Mapping[str, tuple[str, tuple[str, ...], int, str]] = {
    "pacs-art+cartoon": ("pacs", ("art_painting", "cartoon"), 4, "confirmation"),
    "pacs-cartoon+sketch": ("pacs", ("cartoon", "sketch"), 4, "confirmation"),
    "pacs-photo+cartoon": ("pacs", ("photo", "cartoon"), 4, "confirmation"),
    "cifar10": ("cifar10", (), 6, "confirmation"),
    "pacs-photo+art": ("pacs", ("photo", "art_painting"), 3, "replication"),
}
"""Kind of pool → family, source domains, how many are planned, part."""


def _pool(kind: str, number: int) -> Pool:
    """Number ``number`` of a kind, counted from 1; those beyond the planned ones are further pools."""
    family, source, count, part = _KINDS[kind]
    place = list(_KINDS).index(kind) + 1
    return Pool(
        name=f"{kind}-{number}",
        family=family,
        part=part if number <= count or part != "confirmation" else "further",
        seed=10_000 * place + 100 * number,
        split=0 if part == "replication" else 10 * place + number,
        source=source,
    )


POOLS: Mapping[str, Pool] = {
    pool.name: pool for kind, (_, _, count, _) in _KINDS.items() for pool in (_pool(kind, k + 1) for k in range(count))
}
"""The planned pools."""

PRIMARY = ("best", "uniform", "greedy", "greedy-random", "manifoldmix", "learned", "ensemble")
"""What ``affine`` is compared with; Holm's correction is over these, within each family."""
COMPARED: Mapping[str, Mapping[str, str]] = {
    "block": {
        "best": "best",
        "uniform": "uniform",
        "greedy": "greedy",
        "greedy-random": "greedy",
        "manifoldmix": "manifoldmix",
        "ensemble": "ensemble",
        "greedy-ensemble": "greedy-ensemble",
        "model-stock": "model-stock",
        "learned-block": "learned",
        "affine-block": "affine",
        **{
            f"{inner}-{edit}": edit
            for inner in ("uniform", "greedy-random")
            for edit in ("shrink", "lines", "monosoup")
        },
    },
    "layer": {
        "learned": "learned",
        "affine": "affine",
        **{f"affine-{edit}": edit for edit in ("shrink", "lines", "monosoup")},
    },
}
"""Partitioner → method → strategy: those of :data:`PRIMARY` and ``affine`` decide, the others are exploratory."""
OPTIONS = (
    "greedy-random.order=random",
    *(
        f"{inner}-{edit}.inner={inner.partition('-')[0]}"
        for inner, edit in [
            (inner, edit)
            for inner in ("uniform", "greedy-random", "affine")
            for edit in ("shrink", "lines", "monosoup")
        ]
    ),
    *(f"greedy-random-{edit}.inner.order=random" for edit in ("shrink", "lines", "monosoup")),
)
"""Options of these methods; all others are the strategies' defaults."""


def pool_named(name: str) -> Pool:
    """Finds a planned pool, or a further one of its kind.

    Raises:
        UsageError: there is none; the nearest name is said.
    """
    kind, _, number = name.rpartition("-")
    if name not in POOLS and kind in _KINDS and number.isdecimal() and 0 < int(number) < 10:
        return _pool(kind, int(number))
    if name not in POOLS:
        raise click.UsageError(str(unknown("pool", name, POOLS, "see: python -m benchmarks.soups list")))
    return POOLS[name]


def planned() -> tuple[str, ...]:
    """Lists the names of all pools of the protocol."""
    return tuple(POOLS)


def seeds() -> dict[str, dict[str, int]]:
    """Gives the seed of each planned pool, and that of its split."""
    return {name: {"seed": pool.seed, "split": pool.split} for name, pool in POOLS.items()}

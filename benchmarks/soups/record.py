"""What a step leaves: one pool, its models and every method's merge of it, sample by sample, as a file of JSON.

Correctness is kept as packed bits, so that any table, test or interval can be made again without a model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "merging-soups/1"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model of the pool, or a method's merge of it.

    Attributes:
        name: the model's, or what the protocol calls the method.
        correct: set → which samples it has right, packed bits as base64.
        facts: of a model its hyper-parameters; of a merge its strategy, options, partition, ingredients and costs.
        coefficients: of a linear merge: ``ingredients``, ``components`` and ``values``, a row an ingredient.
    """

    name: str
    correct: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    coefficients: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One pool and its comparison.

    Attributes:
        name: the pool's, such as ``pacs-art+cartoon-1``.
        family: pools whose differences are averaged: ``pacs``, ``cifar10``.
        part: ``confirmation``, ``replication`` or ``further``.
        seed: the pool's; run k of it trains with seed + k.
        protocol: SHA-256 of docs/results/protocol.md when the step was made.
        planned: names of all pools of the protocol.
        seeds: of each of these its seed and its split's.
        samples: set → how many, ``held-out`` and ``test`` among them.
        shifts: the shifted sets, whose mean is the primary outcome.
        models: the pool.
        methods: the merges.
        measured: device, numerics, versions, revision, seconds of training and comparison.
    """

    name: str
    family: str
    part: str
    seed: int
    protocol: str
    planned: tuple[str, ...]
    seeds: Mapping[str, Mapping[str, int]]
    samples: Mapping[str, int]
    shifts: tuple[str, ...]
    models: tuple[Scored, ...]
    methods: tuple[Scored, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)

    def correct(self, scored: Scored, name: str) -> NDArray[np.bool_]:
        """Says of each sample of a set whether a model or a merge has it right, shape ``(samples,)``."""
        bits = np.frombuffer(base64.b64decode(scored.correct[name]), dtype=np.uint8)
        return np.unpackbits(bits, count=self.samples[name]).astype(np.bool_)

    def accuracy(self, scored: Scored, name: str) -> float:
        """Gives the share of a set that a model or a merge has right."""
        return float(self.correct(scored, name).mean())

    def shifted(self, scored: Scored) -> float:
        """Gives the mean accuracy over the shifted sets."""
        return float(np.mean([self.accuracy(scored, name) for name in self.shifts]))

    def method(self, name: str) -> Scored | None:
        """Finds a method's merge; None where the step has none."""
        return next((scored for scored in self.methods if scored.name == name), None)

    def write(self, folder: Path) -> Path:
        """Writes the record into a folder, under its name."""
        file = folder / f"{self.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".tmp")
        aside.write_text(
            json.dumps({"format": FORMAT, **asdict(self)}, indent=None, separators=(",", ":")) + "\n", "utf-8"
        )
        aside.replace(file)
        return file

    @classmethod
    def read(cls, file: Path) -> Record:
        """Reads a record.

        Raises:
            ValueError: the file is none.
        """
        data = json.loads(file.read_bytes())
        if data.pop("format", None) != FORMAT:
            raise ValueError(f"{file} is no record of a pool of soups")
        for key in ("models", "methods"):
            data[key] = tuple(Scored(**entry) for entry in data[key])
        for key in ("planned", "shifts"):
            data[key] = tuple(data[key])
        return cls(**data)


def records(folder: Path) -> list[Record]:
    """Reads all records of a folder, in the order of their names."""
    return [Record.read(file) for file in sorted(folder.glob("*.json"))]

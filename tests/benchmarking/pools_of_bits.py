"""Records of pools that never were: random bits with planted differences, and the page that is made of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from benchmarks.soups import page
from benchmarks.soups.__main__ import main
from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import AGAINST, CANDIDATE

PROTOCOL = b"What is compared, and how.\n"
DIGEST = hashlib.sha256(PROTOCOL).hexdigest()
MODELS, COMPONENTS = 6, ("stem", "block", "head")
SAMPLES = {"held-out": 800, "test": 800, "sketch": 3000, "photo": 1500}
METHODS = (CANDIDATE, *AGAINST)
LEVEL = {"held-out": 0.85, "test": 0.8, "sketch": 0.5, "photo": 0.55}


def names(family: str, count: int) -> list[str]:
    return [f"{family}-{number}" for number in range(count)]


def pool(
    name: str,
    planned: Sequence[str],
    *,
    shift: Mapping[str, float] | None = None,
    home: Mapping[str, float] | None = None,
    noise: float = 0.005,
    part: str = "confirmation",
    methods: Sequence[str] = METHODS,
    samples: Mapping[str, int] = SAMPLES,
) -> Record:
    """One pool: what a method is above the others under shift and at home, plus noise that the pool alone has."""
    generator = np.random.default_rng(list(name.encode()))
    luck = {each: generator.random(size) for each, size in samples.items()}
    above = {"test": home or {}, "held-out": home or {}}

    def scored(label: str, **more: object) -> Scored:
        own = {each: above.get(each, shift or {}).get(label, 0.0) + noise * generator.normal() for each in samples}
        bits = {each: luck[each] < LEVEL[each] + own[each] for each in samples}
        packed = {each: base64.b64encode(np.packbits(right).tobytes()).decode() for each, right in bits.items()}
        return Scored(name=label, correct=packed, **more)  # type: ignore[arg-type]

    models = tuple(
        scored(f"model_{number}", facts={"learning_rate": 1e-4 * (1 + number), "augmentation": "flip" * (number % 2)})
        for number in range(MODELS)
    )
    merges = []
    for label in methods:
        drawn = generator.normal(1 / MODELS, 0.3, (MODELS, len(COMPONENTS)))
        known = {"ingredients": [model.name for model in models], "components": COMPONENTS, "values": drawn.tolist()}
        costs = {"inference_cost": 1, "evaluations": 9, "forward_equivalents": 140.5, "seconds": 61.0}
        facts = {"status": "finished", "ingredients": known["ingredients"], **costs}
        merges.append(scored(label, facts=facts, coefficients=known if label == CANDIDATE else None))
    return Record(
        name=name,
        family=name.partition("-")[0],
        part=part,
        seed=1,
        protocol=DIGEST,
        planned=tuple(planned),
        seeds={name: {"seed": 1, "split": 0} for name in planned},
        samples=samples,
        shifts=("sketch", "photo"),
        models=models,
        methods=tuple(merges),
        measured={"device": "2 CPU cores", "seconds": {"training": 1200.0}},
    )


def without(record: Record, method: str) -> Record:
    return replace(record, methods=tuple(each for each in record.methods if each.name != method))


def failing(record: Record, method: str) -> Record:
    """The same step, in which a method broke."""
    facts = {"status": "failed", "why": "a tensor has no\nnumbers", "ingredients": [], "evaluations": 0}
    broken = Scored(name=method, correct={}, facts=facts)
    return replace(record, methods=tuple(broken if each.name == method else each for each in record.methods))


def empty(tmp_path: Path) -> Path:
    """A folder of results with a page and a protocol, and no record."""
    (tmp_path / "soups").mkdir()
    (tmp_path / "protocol.md").write_bytes(PROTOCOL)
    parts = "\n\n".join(f"## {name}\n\n<!-- {name} -->\n<!-- end -->" for name in page.NAMES)
    (tmp_path / "soups.md").write_text(f"# Soups\n\nSaid by hand.\n\n{parts}\n\nThe end.\n")
    return tmp_path


def tables(results: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, ["tables", "--results", str(results), *flags])


def part(results: Path, name: str) -> str:
    return (results / "soups.md").read_text().partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]


def said_of(results: Path, name: str) -> str:
    """A part of the page, without a picture drawn or a file written."""
    return page.made(results).page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]


def row(text: str, first: str, number: int = 0) -> list[str]:
    """Cells of a row, of the first table that has it, or of a later one."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first} |")][number]
    return [cell.strip() for cell in found.strip("|").split("|")]

"""A change of the head alone against a whole evaluation: a matrix product on kept features.

``python -m benchmarks.head --json``. Bar: ratio ≤ 0.03.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from benchmarks.common import (
    chosen,
    evaluator,
    json_option,
    only_option,
    pairs,
    pairs_option,
    show,
    squeezenet,
    trials,
    vit_b32,
)
from merging.partitioners.clip import ClipC8
from merging.partitioners.layer import Layer
from merging.plugins.partitioner import Partitioner

Subject: TypeAlias = tuple[Callable[..., Any], Partitioner, int]
SUBJECTS: dict[str, Subject] = {
    "squeezenet1_1 96 px": (squeezenet, Layer(), 1024),
    "ViT-B/32 224 px": (vit_b32, ClipC8(), 64),
}


def head(names: list[str]) -> list[int]:
    """The head's components."""
    return [k for k, name in enumerate(names) if name.startswith("classif")]


def last_third(names: list[str]) -> list[int]:
    """The components of the last third, rounded up."""
    return list(range(2 * len(names) // 3, len(names)))


def measure(
    folder: Path, subject: tuple[Callable[..., Any], Partitioner, int], moved: Any, count: int
) -> dict[str, Any]:
    """Trials that move some components, with activations kept, against trials that move all, in whole passes."""
    make, partitioner, images = subject
    pool, task = make(folder, images)
    kept, whole = evaluator(pool, task, partitioner), evaluator(pool, task, partitioner, cache_memory=0)
    one, other = trials(kept, moved), trials(whole, moved)
    equal = all(a.score == b.score for a, b in ((one(), other()) for _ in range(3)))  # type: ignore[attr-defined]
    found = pairs(one, trials(whole), count)
    return {
        "images": images,
        "moved": len(moved(list(kept.keys.partition.names))),
        "components": len(kept.keys.partition),
        "same_bits_as_whole_passes": equal,
        "ratio": found.pop("quotient"),
        **found,
    }


@click.command()
@only_option
@pairs_option
@json_option
def main(only: str | None, count: int, as_json: bool) -> None:
    """Head-only evaluation ÷ whole evaluation."""
    rows = [
        {"subject": name, **measure(folder, subject, head, count)} for name, subject, folder in chosen(SUBJECTS, only)
    ]
    show("head", rows, as_json=as_json)


if __name__ == "__main__":
    main()

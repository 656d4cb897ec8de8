"""A change of the last third of the components against a whole evaluation, from kept activations.

``python -m benchmarks.staged --json``. Bar: ratio ≤ 0.40, with the bits of whole passes.
"""

from __future__ import annotations

import click

from benchmarks.common import chosen, json_option, only_option, pairs_option, show, squeezenet, vit_b32
from benchmarks.head import last_third, measure
from merging.partitioners.block import Block

SUBJECTS = {"squeezenet1_1 96 px": (squeezenet, Block(), 1024), "ViT-B/32 224 px": (vit_b32, Block(), 64)}


@click.command()
@only_option
@pairs_option
@json_option
def main(only: str | None, count: int, as_json: bool) -> None:
    """Evaluation of a late change ÷ whole evaluation."""
    rows = [
        {"subject": name, **measure(folder, subject, last_third, count)}
        for name, subject, folder in chosen(SUBJECTS, only)
    ]
    show("staged", rows, as_json=as_json)


if __name__ == "__main__":
    main()

"""A change of the last third of the components against a whole evaluation, from kept activations.

``python -m benchmarks.staged --json``. Bar: ratio ≤ 0.40, with the bits of whole passes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.common import show, squeezenet, vit_b32
from benchmarks.head import last_third, measure
from merging.partitioners.block import Block

SUBJECTS = {"squeezenet1_1 96 px": (squeezenet, Block(), 1024), "ViT-B/32 224 px": (vit_b32, Block(), 64)}


@click.command()
@click.option("--only", help="Part of a subject's name.")
@click.option("--pairs", "count", type=int, default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(only: str | None, count: int, as_json: bool) -> None:
    """Evaluation of a late change ÷ whole evaluation."""
    rows = []
    for name, subject in SUBJECTS.items():
        if only is None or only in name:
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"subject": name, **measure(Path(folder), subject, last_third, count)})
    show("staged", rows, as_json=as_json)


if __name__ == "__main__":
    main()

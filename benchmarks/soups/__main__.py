"""``python -m benchmarks.soups``: the protocol of docs/results/protocol.md, step by step, and its tables."""

from __future__ import annotations

import click

from benchmarks.soups.page import remade
from benchmarks.soups.steps import listed, step
from benchmarks.soups.studies import study


@click.group()
def main() -> None:
    """Pools trained and compared by docs/results/protocol.md, and tables of what is kept."""


for command in (listed, step, study, remade):
    main.add_command(command)

if __name__ == "__main__":
    main()

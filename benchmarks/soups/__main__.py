"""``python -m benchmarks.soups``: the protocol of docs/results/protocol.md, step by step, and its tables."""

from __future__ import annotations

import click

from benchmarks.soups.page import remade
from benchmarks.soups.steps import listed, step


@click.group()
def main() -> None:
    """Pools trained and compared by docs/results/protocol.md, and tables of what is kept."""


main.add_command(listed)
main.add_command(step)
main.add_command(remade)

if __name__ == "__main__":
    main()

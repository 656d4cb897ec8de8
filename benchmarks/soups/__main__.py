"""``python -m benchmarks.soups``: soups compared by a protocol, and the tables of docs/results/soups.md."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.soups import page


@click.group()
def main() -> None:
    """Soups compared by the protocol of docs/results/protocol.md."""


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where the page is not what the records say.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=page.RESULTS,
    help="Folder of soups.md, protocol.md and soups/.",
)
def tables(check: bool, results: Path) -> None:
    """Makes docs/results/soups.md's tables and pictures of the committed records, and says what is missing."""
    made = page.made(results)
    for note in made.notes:
        click.echo(note.replace("**", ""))
    if check:
        if outdated := page.stale(made, results):
            click.echo(f"not what the records say: {', '.join(outdated)}; python -m benchmarks.soups tables", err=True)
            raise SystemExit(1)
        return
    for file in page.write(made, results):
        click.echo(f"wrote {file}")


if __name__ == "__main__":
    main()

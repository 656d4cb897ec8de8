"""``merge apply``: rebuild a merged model from its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from merging.cli.asking.options import shared
from merging.errors import showable


@click.command("apply")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--models", multiple=True, metavar="PATH", help="Where the ingredients are; default: where they were.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("model.safetensors"),
    show_default=True,
    metavar="PATH",
    help="What to write: a .safetensors or .pt file, or a folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace that file.")
@shared("writing", without=("format",), max_shard_size="Write several files of at most SIZE, such as 5GB, to a folder.")
def command(
    recipe: Path,
    models: tuple[str, ...],
    output: Path,
    overwrite: bool,
    **writing: Any,
) -> None:
    """Rebuild a merged model from RECIPE (a recipe.json or a run's folder), bit for bit.

    Ingredients are recognised by their content, not by their names: a changed file is refused.
    """
    from merging.cli.asking.signals import stop_on_signal
    from merging.cli.showing.flags import in_flags
    from merging.cli.showing.screen import Screen, remark
    from merging.cli.showing.terminal import TerminalProgress
    from merging.mixing.writing import Writing
    from merging.plugins.watcher import Watcher
    from merging.running.applying import apply
    from merging.running.notes import negative_variance

    how = Writing(**{name: value for name, value in writing.items() if value is not None})
    news = Screen(stderr=True)
    with stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
        made = apply(
            recipe,
            models=list(models) or None,
            output=output,
            overwrite=overwrite,
            writing=how,
            watcher=Watcher(progress=progress, should_stop=should_stop),
        )
    for note in made.notes:
        click.echo(f"note: {in_flags(note)}", err=True)
    models_of_it = f"{len(made.pool.tensors)} tensors from {len(made.recipe.names)} models"
    click.echo(f"{showable(output)}: {models_of_it}, content {made.hash[:16]}…")
    if made.negative:
        news.print(remark(negative_variance(made.negative)), highlight=False, soft_wrap=True)

"""``merge apply``: rebuild a merged model from its recipe."""

from __future__ import annotations

from pathlib import Path

import click

from merging.errors import FolderError, RecipeError


@click.command("apply")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--models", multiple=True, metavar="PATH", help="Where the ingredients are; default: where they were.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("model.safetensors"), show_default=True,
              metavar="FILE", help="The model to write: .safetensors or .pt.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace that file.")
def command(recipe: Path, models: tuple[str, ...], output: Path, overwrite: bool) -> None:
    """Rebuild a merged model from RECIPE (a recipe.json or a run's folder), bit for bit.

    Ingredients are recognised by their content, not by their names: a changed file is refused.
    """
    import os

    from safetensors import SafetensorError

    from merging.arithmetic import materialise
    from merging.checkpoint import Checkpoint, content_hash
    from merging.output import read_recipe, save_model
    from merging.pool import ModelPool

    kind = {".safetensors": "safetensors", ".pt": "pt"}.get(output.suffix)
    if kind is None:
        raise FolderError(f"--output {output}: the name must end in .safetensors or .pt")
    if not output.parent.is_dir():
        raise FolderError(f"--output {output}: there is no folder {output.parent}")
    if output.exists() and not overwrite:
        raise FolderError(f"{output} exists; pass --overwrite or choose another --output")
    found = read_recipe(recipe)
    if models:
        pool = ModelPool.open(models)
    else:
        lost = [i for i in found.ingredients if not Path(i.file).is_file()]
        if lost:
            raise RecipeError(f"ingredient '{lost[0].name}' is no longer at {lost[0].file}; pass --models")
        pool = ModelPool([Checkpoint(i.file, i.name) for i in found.ingredients])
    tensors = materialise(found, pool)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        save_model(aside, tensors, kind, pool.ties)
        os.replace(aside, output)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FolderError(f"cannot write {output}: {reason}") from None
    finally:
        aside.unlink(missing_ok=True)
    click.echo(
        f"{output}: {len(tensors)} tensors from {len(found.names)} models, content {content_hash(tensors)[:16]}…"
    )

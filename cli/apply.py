"""``merge apply``: rebuild a merged model from its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from merging.cli.asking.options import Taking, shared
from merging.errors import FolderError, reason_of, showable


@click.command("apply", cls=Taking)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("positional", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--models",
    multiple=True,
    metavar="PATH",
    help="Where the ingredients are, as MODEL.  [default: where they were]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("model.safetensors"),
    show_default=True,
    metavar="PATH",
    help="What to write: a .safetensors or .pt file, or a folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace that file.")
@shared("as_json")
@shared("writing", without=("format",), max_shard_size="Write several files of at most SIZE, such as 5GB, to a folder.")
def command(
    recipe: Path,
    models: tuple[str, ...],
    output: Path,
    overwrite: bool,
    as_json: bool,
    **writing: Any,
) -> None:
    """Rebuild a merged model from RECIPE (a recipe.json or a run's folder), bit for bit.

    Ingredients are recognised by their content, not by their names: a changed file is refused.
    """
    import contextlib

    from merging.cli.asking.outputs import check_file
    from merging.cli.asking.signals import stop_on_signal
    from merging.cli.showing.flags import in_flags
    from merging.cli.showing.screen import Screen, print_json, remark
    from merging.cli.showing.terminal import TerminalProgress
    from merging.errors import InterruptedRunError, OptionError, Stopped
    from merging.mixing.writing import Writing
    from merging.running.notes import negative_variance
    from merging.storage import atomic
    from merging.storage.folder import check_parent
    from merging.storage.lock import Lock
    from merging.storage.pool import ModelPool
    from merging.storage.result import OVERRIDES, RECIPE, read_recipe

    kind = {".safetensors": "safetensors", ".pt": "pt", "": "safetensors"}.get(output.suffix)
    if kind is None:
        raise FolderError(f"--output {output}: the name must end in .safetensors or .pt, or have no ending (a folder)")
    check_parent(output, f"--output {output}")
    if kind == "pt" and {writing["max_shard_size"], writing["accumulate"]} - {None, "float64"}:
        raise OptionError(
            "--max-shard-size and --accumulate are for safetensors; give --output a name that ends in .safetensors, or "
            "a folder"
        )
    how = Writing(format=kind, **{name: value for name, value in writing.items() if value is not None})
    whole_folder = not output.suffix
    if whole_folder:
        _check_empty(output)
    elif how.max_shard_size is not None:
        raise OptionError("--max-shard-size writes several files; give --output a folder (no ending)")
    elif output.exists() and not overwrite:
        raise FolderError(f"{output} exists; pass --overwrite or choose another --output")
    found = read_recipe(recipe)
    if models:
        key, *others = {ingredient.key for ingredient in found.ingredients}
        pool = ModelPool.open([{"path": path, "key": "" if others else key} for path in models])
    else:
        pool = ModelPool.reopen(found.ingredients)
        pool.expect(found.ingredients)
    pool.check_open_files()
    files = [file for checkpoint in pool.checkpoints for file in (checkpoint.path, *checkpoint.files)]
    beside = recipe if recipe.is_dir() else recipe.parent
    check_file(output, [*files, recipe, beside / RECIPE, beside / OVERRIDES])
    news = Screen(stderr=True)
    lock, aside = Lock(output.absolute(), beside=True), None
    try:
        if whole_folder:
            _check_empty(output)
        elif output.exists() and not overwrite:
            raise FolderError(f"{output} exists; pass --overwrite or choose another --output")
        aside = atomic.new_folder(output.absolute().parent, output.name)
        with stop_on_signal(news) as should_stop, TerminalProgress(news) as progress:
            written = how.model(found, pool, aside, progress, should_stop)
        if whole_folder:
            if output.is_dir():
                Lock(output).release()  # nobody writes there, and what a killed run has left is removed
            atomic.sync_tree(aside)
            atomic.take_place(aside, output)
        else:
            model = aside / ("model" + output.suffix)
            atomic.sync(model)
            atomic.take_place(model, output)
    except Stopped:
        raise InterruptedRunError("interrupted while merging; nothing was written") from None
    except FolderError:
        raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise FolderError(f"cannot write {output}: {reason_of(error)}; nothing was left there") from None
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):  # the next one that has the lock removes it
                atomic.remove(aside)
        lock.release()
    for note in pool.beside if whole_folder else pool.compared(None):
        click.echo(f"note: {in_flags(note)}", err=True)
    if as_json:
        facts = {"output": str(output.absolute()), "tensors": len(pool.tensors), "models": list(found.names)}
        print_json(facts | {"content_hash": written.hash})
    else:
        models_of_it = f"{len(pool.tensors)} tensors from {len(found.names)} models"
        click.echo(f"{showable(output)}: {models_of_it}, content {written.hash[:16]}…")
    if written.negative:
        news.print(remark(negative_variance(written.negative)), highlight=False, soft_wrap=True)


def _check_empty(folder: Path) -> None:
    """Refuses a folder that holds something: --overwrite replaces a file alone.

    Raises:
        FolderError: it does, is a file, or cannot be written.
    """
    from merging.storage.folder import check_place
    from merging.storage.lock import is_hidden

    check_place(folder)
    if folder.is_dir() and any(not is_hidden(path.name) for path in folder.iterdir()):
        raise FolderError(f"{folder} holds other files; choose another --output: a folder that is empty or not there")

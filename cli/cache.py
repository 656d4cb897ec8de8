"""``merge cache``: what commands keep for one another, where, how much it is; and the way to forget it."""

from __future__ import annotations

import click

from merging.cli.asking.options import shared


@click.command("cache")
@click.option("--clear", is_flag=True, help="Forget all scores, content hashes and opened pages; decoded images stay.")
@shared("as_json")
def command(clear: bool, as_json: bool) -> None:
    """Show what is remembered across commands: scores, and content hashes of models.

    The folder is the one that MERGING_CACHE names, else ~/.cache/merging; MERGING_CACHE_LIMIT limits it, and
    MERGING_REMEMBER=0 has nothing used and nothing kept. Forgetting costs time, nothing else.
    """
    from merging.cli.showing.screen import Screen, print_json, table
    from merging.errors import FolderError, refused, showable
    from merging.storage import user_cache

    most, used = user_cache.limit(), user_cache.remembers()  # a wrong limit is said before anything is forgotten
    if clear:
        try:
            user_cache.clear()
        except OSError as error:
            raise FolderError(f"cannot clear {user_cache.cache_folder()}: {refused(error)}") from None
    found = user_cache.usage()
    if as_json:
        kinds = {kind: {"entries": entries, "bytes": size} for kind, (entries, size) in found.items()}
        print_json({"folder": str(user_cache.cache_folder()), "limit": most, "remembers": used, **kinds})
        return
    console, shown = Screen(), table()
    shown.add_column("kept for later commands")
    shown.add_column("entries", justify="right")
    shown.add_column("MB", justify="right")
    for kind, (entries, size) in found.items():
        shown.add_row({"scores": "scores", "hashes": "content hashes"}[kind], f"{entries:,}", f"{size / 1e6:,.1f}")
    console.print(shown, highlight=False)
    if user_cache.cache_folder() == user_cache.NOWHERE:
        console.print("There is no home folder, so nothing is kept; name one with MERGING_CACHE.", style="dim")
        return
    console.print(f"In {showable(str(user_cache.cache_folder()))}, {most / 1e6:,.0f} MB at most.", style="dim")
    if not used:
        console.print("MERGING_REMEMBER is 0: nothing of it is used.", style="dim")

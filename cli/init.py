"""``merge init``: looks into a folder, guesses what is in it, asks where it cannot know, and writes merge.toml."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.tables import TOML, File
from merging.errors import FolderError, InterruptedRunError, near_path, showable
from merging.plugins.user_code import contained

if TYPE_CHECKING:
    from rich.console import Console

    from merging.looking.guessing.proposal import Proposal


@click.command("init")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--models", multiple=True, metavar="PATH", help="Checkpoints: a file, a folder or a pattern; repeatable.")
@click.option("--base", metavar="FILE", type=click.Path(path_type=Path), help="The model they were fine-tuned from.")
@click.option("--model", metavar="NAME", help="The architecture, such as timm:resnet18.")
@click.option("--data", multiple=True, metavar="PATH", help="Where data lie, or one set of them; repeatable.")
@click.option("--output", type=click.Path(path_type=Path), default=TOML, show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the likeliest answer, and mark it in the file.")
@click.option("--no-try", "tries", flag_value=False, type=bool, default=True, help="Score no held-out samples.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: Path, output: Path, *, force: bool, yes: bool, as_json: bool, **flags: Any) -> None:
    """Look into FOLDER (default: here) and write merge.toml for what lies there.

    Checkpoints that agree are the pool; their architecture is found by what files say, else by the names and shapes of
    their tensors, and every guess is built and compared. Sets of samples get their roles by their names. One model is
    scored on 256 held-out samples where normalisation, size or the order of the classes may be one or another. What
    nothing tells is asked at a terminal, elsewhere guessed, and marked "# guessed" in the file. Nothing is downloaded,
    and no code from the folder is run.
    """
    from merging.cli.showing.screen import Screen, print_json
    from merging.cli.showing.terminal import TerminalProgress
    from merging.looking.guessing.asking import Nobody
    from merging.looking.guessing.guess import Context, Given, propose
    from merging.storage import atomic

    news = Screen(stderr=True)
    if output.exists() and not force:
        raise FolderError(f"{output} is there already; give `force` to replace it, or another `output`")
    if not output.absolute().parent.is_dir():
        raise FolderError(f"{output.absolute().parent} is no folder; choose another `output`")
    if not folder.exists():
        raise FolderError(f"no such folder: {folder}{near_path(folder)}")
    given = Given(
        folder=folder,
        models=flags["models"],
        base=flags["base"],
        model=flags["model"],
        data=flags["data"],
        tries=flags["tries"],
    )
    asks = not yes and not as_json and sys.stdin.isatty() and sys.stderr.isatty()
    with contained(), TerminalProgress(news) as shown:
        try:
            found = propose(given, Context(progress=shown, asker=_Person(shown) if asks else Nobody()))
        except (KeyboardInterrupt, click.Abort):
            raise InterruptedRunError("interrupted; nothing was written") from None
    text = found.text(output)
    File.model_validate(tomllib.loads(text))
    atomic.write(output, text)
    if as_json:
        print_json(found.to_json(output))
    else:
        _show(Screen(), found, output)


class _Person:
    """Asks at the terminal; Enter takes the likeliest answer.

    Args:
        shown: the progress, whose live line is put away while somebody thinks.
    """

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def choose(self, question: str, choices: Sequence[str], marks: Sequence[str] = ()) -> tuple[int, bool]:
        """Lists the answers with their numbers and asks for one."""
        self._pause()
        click.echo(showable(question), err=True)
        for number, choice in enumerate(choices, 1):
            mark = f"  ({marks[number - 1]})" if marks else ""
            click.echo(f"  {number}  {showable(choice)}{showable(mark)}", err=True)
        number = click.prompt("Number", default=1, type=click.IntRange(1, len(choices)), err=True)
        self._resume()
        return number - 1, True

    def name(self, question: str) -> str | None:
        """Asks for a name; an empty one is none."""
        self._pause()
        said = click.prompt(showable(question), default="", show_default=False, err=True).strip()
        self._resume()
        return said or None

    def _pause(self) -> None:
        self._shown.__exit__(None, None, None)

    def _resume(self) -> None:
        self._shown.__enter__()


def _show(console: Console, found: Proposal, output: Path) -> None:
    """What was found as a short table, what to check, and what comes next."""
    from merging.cli.showing import screen
    from merging.cli.showing.screen import marked, remark
    from merging.looking.guessing.proposal import moved, toml
    from merging.values.wording import plural, some

    at, pool = output.absolute().parent, found.pool
    table = screen.table(show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    models = f"{len(pool.models)}: {some([str(model.path) for model in pool.models], 2)}"
    table.add_row("models", marked("{}[yellow]{}[/]", models, "  guessed" if pool.guessed else ""))
    if pool.base is not None:
        table.add_row("base", marked("{}[yellow]{}[/]", str(pool.base.path), "  guessed" if pool.base_guessed else ""))
    for entry in (*found.task, *found.shifts):
        value = moved(entry, at)
        shown = (
            some(list(map(str, value)), 4)
            if entry.key == "classes"
            else value
            if isinstance(value, str)
            else toml(value)
        )
        table.add_row(entry.key, marked("{}[yellow]{}[/]", shown, "  guessed" if entry.guessed else ""))
    for entry in found.run:
        table.add_row(entry.key, str(entry.value))
    console.print(table)
    for entry in found.task:
        for line in entry.why if entry.key in ("model", "classes", "mean", "size") else ():
            console.print(marked("[dim]{}: {}[/]", entry.key, line), highlight=False)
    for reason, paths in pool.left_out.items():
        console.print(
            marked("[dim]left out, {}: {}[/]", reason, some([str(path) for path in paths], 2)), highlight=False
        )
    for note in found.notes:
        mark, _, rest = note.partition(": ")
        console.print(remark(rest, "warning") if mark == "Warning" else remark(note), highlight=False)
    count = len(found.guessed) + bool(pool.guessed) + pool.base_guessed
    guessed = f", {plural(count, 'line')} of it guessed: look at {'them' if count > 1 else 'it'}" if count else ""
    console.print(marked("[bold]{}[/] is written{}.", str(output), guessed), highlight=False)
    where = "" if str(output) == TOML else f" --task {output}"
    console.print(marked("next: [bold]merge check{}[/], then [bold]merge run{}[/]", where, where), highlight=False)

"""What commands print to: names are shown and never obeyed, and a stream that cannot take them decides nothing.

Markup stands in templates alone (:func:`marked`): the screen itself reads none, so a checkpoint called ``[/x]`` or a
class called ``:dog:`` is printed as it is called.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from merging.cli.showing.flags import in_flags
from merging.cli.showing.folding import wrapped
from merging.errors import showable
from merging.values.wording import alike

if TYPE_CHECKING:
    from rich.table import Table

_PLACE = "\ue000"
"""Stands for a value in a template."""


class Screen(Console):
    """Prints to a terminal, pipe or file.

    Args:
        stderr: news, which go beside the result.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def print(self, *objects: Any, **how: Any) -> None:
        """Prints; a sentence is broken between its words alone, so that paths and commands in it stay whole."""
        if len(objects) == 1 and isinstance(objects[0], Text | str) and not how.get("no_wrap"):
            text = objects[0] if isinstance(objects[0], Text) else self.render_str(objects[0], highlight=False)
            width = sys.maxsize if how.pop("soft_wrap", False) else self.width
            lines = [part for line in text.split("\n", allow_blank=True) for part in wrapped(line, width)]
            objects = (Text("\n", end="").join(lines),)
            how |= {"no_wrap": True, "overflow": "ignore", "crop": False}
        super().print(*objects, **how)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A string, or a cell of a table, as text; what would act in it is written as its code."""
        return super().render_str(showable(text, keep="\n"), **settings)


def marked(template: str, *values: object) -> Text:
    """Makes a text with styles: rich's markup in the template, and names that are none of it.

    Args:
        template: markup, with ``{}`` for each value.
        values: names, or texts of this kind.

    >>> marked("[bold]{}[/]: {} models", "[/x]", 3).plain
    '[/x]: 3 models'
    """
    # Rich's escaping fails for some names (those that end with a backslash, or hold an open bracket): none of them
    # is ever read as markup, each takes the place of a mark.
    read = Text.from_markup(template.replace("{}", _PLACE), emoji=False)
    places = [offset for offset, character in enumerate(read.plain) if character == _PLACE]
    left = iter(values)
    parts = read.divide([cut for offset in places for cut in (offset, offset + 1)])
    return Text().join(_filled(part, next(left)) if part.plain == _PLACE else part for part in parts)


def _filled(place: Text, value: object) -> Text:
    """A value in the styles of its place."""
    text = value if isinstance(value, Text) else Text(showable(value))
    for span in place.spans:
        text.stylize_before(span.style)
    return text


def table(**how: Any) -> Table:
    """A table without lines, its headings bold; ``how``: what is otherwise, as rich's ``Table`` takes it."""
    from rich.table import Table

    return Table(**{"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0), **how})


def remark(text: object, mark: str = "note") -> Text:
    """A remark on a result: a sentence, which may hold names and is told in flags, after its mark."""
    style = "bold yellow" if mark == "warning" else "yellow"
    return marked(f"[{style}]{mark}:[/] {{}}", in_flags(text))


def notes(console: Console, lines: Iterable[str], names: Iterable[str] = ()) -> None:
    """Prints what is to be known beside a result, dim, and once where it is the same of many.

    Args:
        console: the screen.
        lines: sentences of the core.
        names: what may differ in sentences that are otherwise the same: names of models, paths, labels of methods.
    """
    for line in alike(lines, names):
        console.print(marked("note: {}", in_flags(line)), style="dim", highlight=False)


def warned(console: Console, lines: Iterable[str], names: Iterable[str] = ()) -> int:
    """Prints warnings on a result, a line each, and once where it is the same of many; returns how many lines.

    Args:
        console: the screen.
        lines: sentences of the core.
        names: names that may differ in them, see :func:`notes`.
    """
    shown = alike(lines, names)
    for line in shown:
        console.print(remark(line, "warning"), highlight=False)
    return len(shown)


def warn(warnings: Iterable[str]) -> None:
    """Prints a line for each warning."""
    for warning in warnings:
        click.echo(f"warning: {in_flags(warning)}", err=True)


def say_built_in(request: Mapping[str, Any], news: Console, flag: str = "--models") -> None:
    """Says that nobody named models or a task, so that the built-in one is taken; every command says it here.

    Args:
        request: what the command is asked for.
        news: standard error.
        flag: what would have named another one.
    """
    context = click.get_current_context(silent=True)
    typed = context is not None and (context.params.get("task") or context.params.get("resume"))
    named = context is not None and context.obj is not None and context.obj.file.task.name
    if request["task"] == "digits" and not request["models"] and not typed and not named:
        where = "merge.toml names none" if context is not None and context.obj is not None else "no merge.toml"
        news.print(marked(f"No {flag} and {where}: using the built-in task [bold]digits[/]."), highlight=False)
        if _models_here():
            hint = "There are checkpoints in this folder: [bold]merge init[/] writes merge.toml for them."
            news.print(marked(hint), highlight=False)


def _models_here() -> bool:
    """Whether checkpoints lie in the working folder, or right in a folder of it."""
    from merging.storage.sources import expand

    try:
        return any(expand(each) for each in [Path(), *(path for path in Path().iterdir() if path.is_dir())])
    except OSError:  # a folder that is not ours to read
        return False


def print_json(data: Any) -> None:
    """Prints JSON, names as they are: what standard output lacks, or a terminal obeys, as JSON's own escapes."""
    say_json(json.dumps(data, indent=1, ensure_ascii=False))


def say_json(text: str) -> None:
    """Prints a JSON document, see :func:`print_json`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        plain = showable(text, keep="\n") == text
    except UnicodeEncodeError:
        plain = False
    click.echo((text if plain else json.dumps(json.loads(text), indent=1)).rstrip("\n"))

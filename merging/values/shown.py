"""How a value shows itself in Python: a line or two at the prompt, a fragment of HTML in a notebook.

Names may hold anything: at the prompt what would act is written as its code, in HTML jinja escapes what stands in a
template. The fragment takes text and ground from the page that it is put into, so that it fits light and dark.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merging.errors import showable
from merging.values.wording import beginning, plural, some

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 280
"""Characters of what a prompt shows at the most."""
FACT = 200
"""Characters of one fact there at the most: an answer with its losses is not cut."""
ROWS = 40
"""Rows of a table in a notebook at the most; a value's ``to_frame()`` has all of them."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a number with its mark, and how both are dressed.

    Attributes:
        text: what stands in it.
        mark: sign of a verdict beside it.
        kind: ``up``, ``down`` or nothing: the colour of the mark.
        best: whether it is the best of its line.
    """

    text: str
    mark: str = ""
    kind: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table of a notebook.

    Attributes:
        heads: headings; that of the first column, which names the rows, may be empty.
        rows: rows, as many cells in each; the first one is its name.
    """

    heads: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The parts of a value that are seen, whatever shows it.

    Attributes:
        name: what it is, such as "ModelPool".
        facts: short facts, the most important ones first; the prompt shows these alone.
        lines: sentences above the tables.
        grids: tables.
        notes: dim sentences below them.
    """

    name: str
    facts: tuple[str, ...]
    lines: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """One line for a prompt, of 280 characters at the most."""
        facts = [beginning(showable(fact), FACT) for fact in self.facts if fact]
        return f"<{beginning(f'{self.name}: ' + ', '.join(facts), LONGEST)}>"

    def html(self, body: str = "", head: str = "") -> str:
        """A fragment of HTML, no whole page.

        Args:
            body: HTML that was made of a template already, in the place of the tables.
            head: the same, to stand first.
        """
        from markupsafe import Markup

        made = environment("merging.values").get_template("shown.html.j2")
        parts = {"dark": Markup(DARK), "head": Markup(head), "body": Markup(body)}  # noqa: S704 (our own and templates')
        return made.render(sheet=self, most=ROWS, **parts)


class Shown:
    """A value that shows itself: subclasses say in ``_sheet`` what is to be seen of it."""

    __slots__ = ()

    def _sheet(self) -> Sheet:
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            return self._sheet().text()
        except AttributeError:  # half made, as a debugger or a traceback may meet it
            return f"<{type(self).__name__}>"

    def _repr_html_(self) -> str:
        return self._sheet().html()


@functools.cache
def environment(*packages: str) -> Environment:
    """Templates in which every name is escaped, and what a browser obeys though it is no HTML is written as its code.

    Args:
        packages: those that templates are read from, where they are files.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    from merging.values.answer import bare  # which is shown by this module

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    made.filters["bare"] = bare
    return made


def _seen(value: Any) -> Any:
    from markupsafe import Markup

    return showable(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def named(names: Sequence[str], noun: str, most: int = 3) -> str:
    """Counts things and names the first ones.

    >>> named(["a", "b", "c", "d"], "model"), named(["a"], "model")
    ('4 models (a, b, c and 1 more)', '1 model (a)')
    """
    listed = [beginning(name, 24) for name in names[: most + 1]]
    more = some([*listed, *names[most + 1 :]], most)
    return f"{plural(len(names), noun, ',')} ({more})" if names else f"no {noun}s"


def grid(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Grid:
    """A table of texts and numbers."""
    return Grid(tuple(heads), [[each if isinstance(each, Cell | str) else f"{each:,}" for each in row] for row in rows])


DARK = 'body[data-jp-theme-light="false"], .vscode-dark, .vscode-high-contrast, html[theme="dark"], [data-theme="dark"]'
"""What marks a dark theme: JupyterLab and nbconvert, VS Code, Colab, Sphinx. It is a notebook's own, whatever a
system prefers."""

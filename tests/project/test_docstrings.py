"""What ``help()`` shows is read alone: it begins with a subject or a verb, and is no riddle such as "Of its file."."""

import ast
import glob
import re
from collections.abc import Iterator
from pathlib import Path

import merging

ROOT = Path(merging.__file__).parent
LEANING = frozenset(
    [
        "of",
        "as",
        "at",
        "behind",
        "between",
        "by",
        "for",
        "from",
        "in",
        "into",
        "like",
        "likewise",
        "more",
        "on",
        "than",
        "that",
        "these",
        "those",
        "to",
        "under",
        "where",
        "whose",
        "with",
        "within",
    ]
)
"""Words that lean on something that stands elsewhere: on a name, a heading, the line before."""
ASKING = frozenset(["what", "which", "when", "how", "why"])
"""Words with which a summary names a question, and does not say what is done; an argument may be the answer."""
ACTING = frozenset(["describes", "holds", "names", "says", "shows", "tells"])
"""Words with which a value becomes somebody who acts: "Shows one score" is "One score, as a table shows it"."""
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Shapes):$")


def documents(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name and docstring of every public class, function and method, and of constants that have one."""

    def inside(node: ast.Module | ast.ClassDef, where: str) -> Iterator[tuple[str, str]]:
        for one, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(one, ast.FunctionDef | ast.ClassDef) and not one.name.startswith("_"):
                yield where + one.name, ast.get_docstring(one) or ""
                if isinstance(one, ast.ClassDef):
                    yield from inside(one, f"{where}{one.name}.")
            elif isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(following, ast.Expr):
                name = ast.unparse(one.targets[0] if isinstance(one, ast.Assign) else one.target)
                if isinstance(following.value, ast.Constant) and not name.startswith("_"):
                    yield where + name, str(following.value.value)

    yield from inside(tree, "")


def entries(document: str) -> Iterator[tuple[str, str]]:
    """Name and description of what stands under ``Args:`` and ``Attributes:``."""
    section = ""
    for line in document.splitlines():
        if heading := SECTION.match(line):
            section = heading[1]
        elif line and not line.startswith(" "):
            section = ""
        elif section in ("Args", "Attributes") and (found := re.match(r"    (\w[\w, *]*): +(.*)", line)):
            yield found[1], found[2]


def opening(text: str) -> str:
    """The first word of a text, in lower case."""
    return re.split(r"[\s,.:;]", text.strip().lower())[0]


def values(tree: ast.Module) -> set[str]:
    """Names of the classes that are values: dataclasses and enums."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    facts = {node.name: [*map(ast.unparse, node.decorator_list), *map(ast.unparse, node.bases)] for node in classes}
    return {name for name, said in facts.items() if any("dataclass" in each or "Enum" in each for each in said)}


def riddles(source: str) -> list[str]:
    """Finds summaries and descriptions that cannot be read alone.

    A summary has a verb ("Reads one tensor.") or is a noun phrase with its subject ("One score, as a table shows it").
    It is a riddle where it has fewer than four words, begins with a word that leans on something or asks, is a formula
    without a name, or makes a value act.
    """
    tree, found = ast.parse(source), list[str]()
    things = values(tree)
    for name, document in documents(tree):
        if not document:
            continue  # an override, which has the docstring of what it overrides
        words = re.split(r"\s+", document.strip())
        first = re.split(r"(?<=[.!?]) ", " ".join(words))[0]
        unsaid = LEANING | ASKING | (ACTING if name in things else frozenset())
        if len(first.split()) < 4 or opening(document) in unsaid or words[1] == "=":
            found.append(f"{name}: {first}")
        found += [f"{name}, {argument}: {said}" for argument, said in entries(document) if opening(said) in LEANING]
    return found


def test_docstrings_can_be_read_alone() -> None:
    modules = sorted(glob.glob(f"{ROOT}/**/*.py", recursive=True))  # of linked wings too, which rglob leaves out
    assert {ROOT / "cli", ROOT / "strategies", ROOT / "plugins"} <= {Path(name).parent for name in modules}
    found = {str(Path(name).relative_to(ROOT)): riddles(Path(name).read_text("utf-8")) for name in modules}
    assert {path: said for path, said in found.items() if said} == {}


def test_riddles_are_found() -> None:
    source = '''
class Row:
    """One row of a table.

    Attributes:
        name: of its file.
        file: name of the file this row is kept in.
        size: how many
            bytes: in it.
        mean, std: likewise.
    """

    def kept(self):
        """As they are kept."""

    def say(self):
        """Says what it is."""

    def given(self):
        """What is given to it."""

    def _hidden(self):
        """Of its file."""

class Printer:
    """Shows one score in a table."""

@dataclass(frozen=True)
class Shown:
    """Shows one score in a table."""

@dataclass(frozen=True)
class Cell:
    """In-distribution score, as a table shows it."""

class Mean:
    """θ = (1/n) Σ θ_i."""

SHARE = 0.5
"""Of the samples that are held out."""
LAST = 3
"""The last."""
'''
    found = [said.partition(":")[0] for said in riddles(source)]
    assert found == ["Row, name", "Row, mean, std", "Row.kept", "Row.given", "Shown", "Mean", "SHARE", "LAST"]

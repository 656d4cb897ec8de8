"""What ``help()`` shows is read alone: it begins with a subject or a verb, and is no riddle such as "Of its file."."""

import ast
import glob
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import merging

ROOT = Path(merging.__file__).parent
HELD = (
    "benchmarking/earlier.py",
    "benchmarking/folder.py",
    "benchmarking/gathering.py",
    "benchmarking/published.py",
    "benchmarking/reading.py",
    "benchmarking/rendering",
    "benchmarking/results.py",
    "benchmarking/runs.py",
    "cli/showing",
    "data",
    "errors.py",
    "forward",
    "looking",
    "machine.py",
    "models",
    "moved.py",
    "objectives",
    "optimizers",
    "partitioners",
    "plugins/objective.py",
    "plugins/optimizer.py",
    "plugins/options.py",
    "plugins/partitioner.py",
    "plugins/progress.py",
    "tasks",
    "testing",
    "training",
    "values",
)
"""Wings whose docstrings are held to this."""
LEANING = frozenset(
    [
        "of",
        "as",
        "at",
        "by",
        "for",
        "from",
        "in",
        "into",
        "on",
        "to",
        "under",
        "with",
        "within",
        "where",
        "whose",
        "that",
    ]
)
"""Words that lean on something that stands elsewhere: on a name, a heading, the line before."""
ASKING = frozenset(["what", "which", "when", "how", "why"])
"""Words with which a summary names a question, and does not say what is done; an argument may be the answer."""
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


def riddles(source: str) -> list[str]:
    """Summaries of fewer than four words or that lean on something, and descriptions that do."""
    found = []
    for name, document in documents(ast.parse(source)):
        if not document:
            continue  # an override, which has the docstring of what it overrides
        words = re.split(r"\s+", document.strip())
        first = re.split(r"(?<=[.!?]) ", " ".join(words))[0]
        if len(first.split()) < 4 or words[0].lower() in LEANING | ASKING:
            found.append(f"{name}: {first}")
        found += [
            f"{name}, {argument}: {said}"
            for argument, said in entries(document)
            if re.split(r"\W", said)[0].lower() in LEANING
        ]
    return found


def files(wing: str) -> list[Path]:
    """Modules of a wing, or the one module."""
    place = ROOT / wing
    return (
        [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(f"{place}/**/*.py", recursive=True))]
    )


@pytest.mark.parametrize("wing", HELD)
def test_docstrings_can_be_read_alone(wing: str) -> None:
    modules = files(wing)
    assert modules
    found = {str(path.relative_to(ROOT)): riddles(path.read_text("utf-8")) for path in modules}
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
    """

    def kept(self):
        """As they are kept."""

    def say(self):
        """Says what it is."""

    def _hidden(self):
        """Of its file."""

SHARE = 0.5
"""Of the samples that are held out."""
'''
    assert [said.partition(":")[0] for said in riddles(source)] == ["Row, name", "Row.kept", "SHARE"]

"""The shape of the code in figures: what takes too many arguments, what is too long, what is said too often.

``python -m benchmarks.shape`` prints them for this checkout, ``--revision REV`` for another one beside it.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.revision import ROOT, unpack

ROOTS = ("merging", "strategies", "partitioners", "optimizers", "objectives", "cli")
"""Folders of what is shipped; ``merging`` holds links to the others, which are not followed."""
MOST_ARGUMENTS = 8
"""More of them are values that nobody has made yet."""
LONG_CLASS = 150
"""Lines."""
WIDE = 5
"""Fields above which a value is made with keywords only."""
SETTINGS = (
    *("seed", "budget", "max_evaluations", "freeze", "device", "precision", "tune", "compile", "threads"),
    *("baselines", "tests", "certify_split", "recalibrate", "as_stored", "cache_memory", "exact_savings"),
    *("format", "dtype", "accumulate", "max_shard_size"),
)
"""What a run can be told, as ``merge run`` calls it."""


def files(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Each shipped file, parsed."""
    for folder in ROOTS:
        for path in sorted((root / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in (path, *path.parents) if parent.is_relative_to(root)):
                yield path.relative_to(root), ast.parse(path.read_text("utf-8"))


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function has, ``self`` and ``cls`` aside."""
    given = node.args
    places = [*given.posonlyargs, *given.args]
    more = (given.vararg is not None) + (given.kwarg is not None) - (bool(places) and places[0].arg in ("self", "cls"))
    return len(places) + len(given.kwonlyargs) + more


def fields(node: ast.ClassDef) -> int:
    """How many fields a dataclass declares itself."""
    own = [entry for entry in node.body if isinstance(entry, ast.AnnAssign)]
    return sum("ClassVar" not in ast.unparse(entry.annotation) for entry in own)


def positional(node: ast.ClassDef) -> bool:
    """Whether it is a dataclass that takes its fields by position."""
    made = [ast.unparse(each) for each in node.decorator_list]
    return any(each.startswith("dataclass") and "kw_only=True" not in each for each in made)


def passed(tree: ast.Module) -> set[str]:
    """Settings that a file names one by one: as a parameter, a keyword, a field, a key or a flag."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.keyword) and node.arg is not None:
            found.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found & set(SETTINGS)


def look(root: Path) -> str:
    """The figures of one checkout, as text."""
    functions, classes, wide, members = list[tuple[int, str]](), list[tuple[int, str]](), list[str](), 0
    places = Counter[str]()
    for path, tree in files(root):
        places.update(passed(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((arguments(node), f"{path}: {node.name}"))
            elif isinstance(node, ast.ClassDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                classes += [(length, f"{path}: {node.name}")] if length > LONG_CLASS else []
                wide += [f"{path}: {node.name}"] if positional(node) and fields(node) > WIDE else []
                if path.as_posix() == "merging/plugins/problem.py" and node.name == "Problem":
                    members = sum(isinstance(each, ast.FunctionDef | ast.AnnAssign) for each in node.body)
    largest = sorted(functions, key=lambda pair: (-pair[0], pair[1]))[:5]
    lines = ["arguments of the five largest functions:", *(f"  {count:3d}  {name}" for count, name in largest)]
    lines += [f"members of Problem: {members}", f"classes over {LONG_CLASS} lines: {len(classes)}"]
    lines += [f"  {count:3d}  {name}" for count, name in sorted(classes, reverse=True)]
    lines += [f"values of more than {WIDE} fields that take them by position: {len(wide)}"]
    lines += [f"files that name a setting (sum over {len(SETTINGS)} settings): {places.total()}"]
    lines += [f"  {count:3d}  {name}" for name, count in places.most_common()]
    return "\n".join(lines)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--revision", help="of this repository; default: the files as they lie here")
    wanted = parser.parse_args().revision
    if wanted is None:
        print(look(ROOT))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(look(unpack(wanted, Path(folder))))


if __name__ == "__main__":
    main()

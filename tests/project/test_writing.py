"""The package writes through merging.storage.atomic alone, and says how its text is encoded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import merging

ROOT = Path(merging.__file__).parent
ALLOWED = {
    *("storage/atomic.py", "storage/journal.py", "storage/lock.py", "data/cache.py", "drawing/saving.py"),
    "sinks/tensorboard.py",
}
"""The mechanism itself; what is appended to, event files too; a lock; images that are decoded into a map, in a folder
aside; and a wing that is below the mechanism."""
METHODS = {"write_text", "rename", "savez", "savez_compressed", "tofile", "open_memmap", "touch", "symlink_to"}


def writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that write in another way: methods that a linter cannot tell from others, by name and arguments."""
    asides = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "replacing" in ast.unparse(item.context_expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        first = ast.unparse(node.args[0]) if node.args else ""
        modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        mode = next((m for m in modes if isinstance(m, str) and m and set(m) <= set("rwxab+t")), "r")
        encoded = any(keyword.arg == "encoding" for keyword in node.keywords)
        one = len(node.args) == 1 and not node.keywords and owner not in ("", "dataclasses")  # str.replace has two
        opens, reads = name == "open" and owner != "os", name == "read_text" and not node.args
        ways = {
            name: name in METHODS,
            "write_bytes": name == "write_bytes" and owner not in asides,
            "replace": name == "replace" and one,
            "open for writing": opens and bool(set(mode) & set("wxa+")),
            "os.open for writing": name == "open" and owner == "os" and "O_CREAT" in ast.unparse(node),
            "save": name in ("save", "savefig") and owner not in ("", "self") and first not in asides | {"out"},
            "text without an encoding": not encoded
            and (reads or (opens and owner in ("", "Path") and "b" not in mode)),
        }
        yield from ((node.lineno, way) for way, used in ways.items() if used)


def test_everything_is_written_by_one_mechanism() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {what}"
        for file in sorted(_files())
        if str(file.relative_to(ROOT)) not in ALLOWED
        for line, what in writes(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


def _files() -> list[Path]:
    """All modules; the leaves' folders and the command line are links."""
    return [file for folder in [ROOT, *(p for p in ROOT.iterdir() if p.is_symlink())] for file in folder.rglob("*.py")]


@pytest.mark.parametrize(
    "line",
    [
        "Path('x').write_text('y')",
        "path.write_bytes(b'')",
        "a.replace(b)",
        "a.rename(b)",
        "open('x', 'w')",
        "path.open(mode='ab')",
        "os.open(path, os.O_CREAT | os.O_RDWR)",
        "np.save(path, x)",
        "figure.savefig(path)",
        "path.read_text()",
        "open(path)",
    ],
)
def test_other_ways_are_seen(line: str) -> None:
    assert list(writes(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "text.replace('a', 'b')",
        "open(path, 'rb')",
        "path.read_text(encoding='utf-8')",
        "os.open(path, os.O_RDONLY)",
        "dataclasses.replace(x)",
        "with replacing(path) as aside:\n    aside.write_bytes(b'')",
    ],
)
def test_reading_and_text_are_not(line: str) -> None:
    assert not list(writes(ast.parse(line)))

"""Text that is read, here or from another process, has an encoding: the one of the user's locale may be any."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("merging", "cli", "strategies", "partitioners", "optimizers", "objectives", "benchmarks")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if not file.is_symlink())


def without_encoding(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that read (or may write) text in the locale's encoding."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        given = {keyword.arg for keyword in call.keywords}
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if called == "read_text" and not call.args and "encoding" not in given:
            yield call
        if called == "open" and _is_text(call) and "encoding" not in given:
            yield call
        if (
            {"text", "universal_newlines"} & given
            and called in ("run", "Popen", "check_output")
            and "encoding" not in given
        ):
            yield call


def _is_text(call: ast.Call) -> bool:
    """Whether it opens a file for text; other things (pools, images, descriptors) are opened too."""
    builtin = isinstance(call.func, ast.Name)
    place = 1 if builtin else 0
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    mode = mode or (call.args[place] if len(call.args) > place else None)
    if isinstance(mode, ast.Constant) and isinstance(mode.value, str):
        return bool(re.fullmatch("[rwax+t]+", mode.value))
    return builtin and mode is None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_text_is_read_in_an_encoding(file: Path) -> None:
    found = [call.lineno for call in without_encoding(ast.parse(file.read_text("utf-8")))]
    assert not found, f"{file}: lines {found} read text in whatever encoding the locale has; say which"


def test_the_rule_sees_what_it_should() -> None:
    wrong = "a.read_text()\nopen(b)\nopen(b, 'w')\nc.open('r')\nsubprocess.run(d, text=True)"
    right = "a.read_text('utf-8')\nopen(b, 'rb')\nImage.open(f)\nos.open(g, 0)\nc.open('rb')\n"
    right += "run(d, text=True, encoding='x')"
    assert [call.lineno for call in without_encoding(ast.parse(wrong))] == [1, 2, 3, 4, 5]
    assert not list(without_encoding(ast.parse(right)))

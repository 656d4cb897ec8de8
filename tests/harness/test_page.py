"""The page's commands run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Merge
from tests.project.test_docs import blocks, run_commands, write_files


def test_the_page(language: Path, tmp_path: Path, merge: Merge, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(language / "models", tmp_path / "models")
    shutil.copytree(language / "tasks", tmp_path / "tasks")
    shutil.copy(language / "quiz.jsonl", tmp_path)
    write_files("lm-eval.md", tmp_path)
    said = list(run_commands("lm-eval.md", tmp_path, merge=merge).values())
    assert "▲ better or ▼ worse than a" in said[1]
    assert said[2].partition(":")[0].endswith("merged")
    assert said[3].count("mine acc") == 2
    (program,) = blocks("lm-eval.md", "run-python").values()
    exec(program, {})  # noqa: S102 (our own page)
    assert "quiz acc_norm" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "scored").iterdir()} == {"a", "b", "merged"}

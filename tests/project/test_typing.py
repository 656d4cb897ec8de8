"""A third party's plug-ins under mypy and pyright: they accept what is right, and refuse what is not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = ROOT / "typing_tests" / "third_party.py"
WRONG = """
import merging
import merging.plugins.registry as names
merging.ManifoldMix(tau=0.99).mix("no problem")
merging.ManifoldMixx()
names.strategies.register("function")(print)
def old(problem: merging.Problem) -> object:
    return problem.logits(problem.single(0))
"""
CHECKERS = {"mypy": ["mypy", "--config-file", str(ROOT / "pyproject.toml")], "pyright": ["pyright"]}

pytestmark = pytest.mark.slow


def check(checker: str, file: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed (extra dev-full)")
    command = [sys.executable, "-m", *CHECKERS[checker], str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("checker", list(CHECKERS))
def test_a_third_partys_plug_ins_are_accepted(checker: str) -> None:
    done = check(checker, RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", list(CHECKERS))
def test_what_is_wrong_is_refused(checker: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    done = check(checker, tmp_path / "wrong.py")
    assert done.returncode == 1, done.stdout + done.stderr
    for line in ("wrong.py:4", "wrong.py:5", "wrong.py:6", "wrong.py:8"):
        assert line in done.stdout

"""``--workers`` on the command line: what is said of it before any work, in a line where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TASK, Merge


@pytest.fixture
def small(pool_folder: Path) -> list[str]:
    return ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--strategy", "greedy"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("gppu", "--workers is 'gppu'; did you mean 'gpu'?"),
        ("0", "--workers is 0, but their number must be between 1 and"),
        ("ray:auot", "did you mean 'ray:auto'?"),
        ("4@gpu", "4 GPUs are gpu:4"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "benchmark"])
def test_a_wrong_one_is_a_line(merge: Merge, small: list[str], command: str, said: str, words: str) -> None:
    small = small[:-2] if command == "benchmark" else small
    ran = merge(command, *small, "--workers", said)
    assert ran.code == 2
    assert words in ran.err
    assert sum("error: " in line for line in ran.err.splitlines()) == 1
    assert not Path("runs").exists()


def test_the_file_says_it_too(merge: Merge, small: list[str]) -> None:
    Path("merge.toml").write_text('[run]\nworkers = "gpu:many"\n')
    ran = merge("run", *small, "--output", "out")
    assert ran.code == 2
    assert "--workers is 'gpu:many'; it is a number, gpu, gpu:N, ray" in ran.err
    Path("merge.toml").write_text("[run]\nworkers = 3\n")
    ran = merge("run", *small, "--dry-run")
    assert ran.code == 0, ran.err
    assert "; workers: 3" in ran.out
    assert "; workers" not in merge("run", *small, "--workers", "none", "--dry-run").out


def test_a_check_says_what_many_of_them_gain_at_the_best(merge: Merge, small: list[str]) -> None:
    ran = merge("check", *small, "--workers", "4")
    assert ran.code == 0, ran.err
    assert "by one worker, at least" in " ".join(ran.out.split())
    assert json.loads(merge("check", *small, "--workers", "4", "--json").out)["cost"]["workers"] == 4
    assert "worker" not in merge("check", *small).out

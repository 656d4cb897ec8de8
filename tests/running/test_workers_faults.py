"""Workers and drivers killed while they evaluate: one case of each of ``python -m benchmarks.workers --faults``."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.workers import faults
from benchmarks.workers.faults import Case, Lost, Made, Run, busy, driver
from tests.conftest import TASK

pytestmark = pytest.mark.slow

Disturb = Callable[[Run, random.Random], int]
SEARCH = ("--task", TASK, "--partitioner", "layer", "--optimizer", "random", "--budget", "150")


def once_it_evaluates(folder: Path, disturb: Disturb) -> Disturb:
    """Disturbs a run as soon as an evaluation stands in its journal."""

    def then(run: Run, chance: random.Random) -> int:
        journal = folder / "out/events.jsonl"
        while run.running() and not (journal.is_file() and b'"evaluation"' in journal.read_bytes()):
            time.sleep(0.002)
        return disturb(run, chance)

    return then


def test_what_is_killed_changes_no_bit(
    pool_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "argv", ["merge"])
    monkeypatch.setattr(faults, "RESUMED", ("none",))
    chance = random.Random(0)  # noqa: S311 (no secret)
    problem = ("--models", f"{pool_folder}/model_*.safetensors", *SEARCH, "-o", "strategy.tau=0.9")
    case = Case("manifoldmix", problem, workers="1")  # another one takes its place, or nobody does
    expected, _ = case.undisturbed(tmp_path / "alone", "none")
    for kind in (busy, driver):
        folder = tmp_path / kind.__name__
        made, killed = case.disturbed(folder, 0.0, chance, once_it_evaluates(folder, kind))
        assert killed == 1
        made.check(expected)
    assert "was killed by SIGKILL" in (tmp_path / "busy/said").read_text("utf-8")
    for wrong in (Made(expected.events[:-1], expected.recipe, expected.model), Made(expected.events, b"", b"")):
        with pytest.raises(Lost):
            wrong.check(expected)

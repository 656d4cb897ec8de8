"""Pools of many models: what is done for each of them does not grow with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import merging
from merging.storage.pool import ModelPool
from merging.storage.rows import UNREAD


def work(folder: Path, models: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a run without a task asks the file system where a file really is, or what it is."""
    folder.mkdir()
    for number in range(models):
        save_file({"a": torch.full((2,), float(number))}, folder / f"model_{number}.safetensors")
    calls = 0
    with monkeypatch.context() as patched:
        for name in ("resolve", "stat"):
            before = getattr(Path, name)

            def counted(self: Path, *given: Any, before: Any = before, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                return before(self, *given, **more)

            patched.setattr(Path, name, counted)
        pool = ModelPool.open([folder, folder / "*.safetensors"])
        merging.merge(pool, merging.Uniform(), output=folder / "out")
        assert len(pool) == models, "named twice, there once"
    return calls


def test_cost_is_linear_in_the_number_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (work(tmp_path / str(models), models, monkeypatch) for models in (20, 80))
    assert many < 4.4 * few, f"{few} calls for 20 models, {many} for 80"


def test_rows_follow_what_is_found_while_merging(tmp_path: Path) -> None:
    for number in range(2):
        save_file({"a": torch.full((2,), float(number))}, tmp_path / f"model_{number}.safetensors")
    pool = ModelPool.open([tmp_path])
    pool.postpone()
    assert all(row.hash.startswith(UNREAD) for row in pool.ingredients)
    pool.settle({checkpoint: checkpoint.hash for checkpoint in pool.checkpoints})
    assert [row.hash for row in pool.ingredients] == [checkpoint.hash for checkpoint in pool.checkpoints]
    assert pool.find(pool.ingredients[1]) is pool.checkpoints[1]

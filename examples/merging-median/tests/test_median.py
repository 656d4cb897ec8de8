"""The contract, and the property that makes a median worth having."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from merging_median import Median

from merging.testing import StrategyContract, tiny_pool, tiny_problem


class TestMedian(StrategyContract):
    @pytest.fixture
    def plugin(self) -> Median:
        return Median()


def test_without_trimming_it_is_the_average(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path, models=4)
    merged = Median(trim=0.0).mix(tiny_problem(pool)).tensors
    for name in pool.mixable:
        mean = torch.stack([checkpoint.read(name).double() for checkpoint in pool.checkpoints]).mean(0)
        assert torch.allclose(merged[name].double(), mean, atol=1e-6)


def test_one_wild_model_moves_no_weight_beyond_the_others() -> None:
    values = torch.tensor([[1.0], [2.0], [3.0], [1e6]])
    assert Median()._middle(values).item() == 2.5

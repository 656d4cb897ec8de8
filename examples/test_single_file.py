"""The contract that every strategy keeps, run on one in a file; then what this one promises besides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from merging.testing import StrategyContract, tiny_pool, tiny_problem

sys.path.append(str(Path(__file__).parent))
from single_file import SoftmaxSoup


class TestSoftmaxSoup(StrategyContract):
    @pytest.fixture
    def plugin(self) -> SoftmaxSoup:
        return SoftmaxSoup()


def test_high_temperature_is_the_uniform_soup(tmp_path: Path) -> None:
    problem = tiny_problem(tiny_pool(tmp_path, models=4))
    assert SoftmaxSoup(temperature=1e9).mix(problem).coefficients == pytest.approx(0.25)


def test_better_models_count_more(tmp_path: Path) -> None:
    problem = tiny_problem(tiny_pool(tmp_path, models=4))
    weights = SoftmaxSoup().mix(problem).coefficients[:, 0]
    assert sum(weights) == pytest.approx(1.0)
    assert list(weights) == sorted(weights, reverse=True)

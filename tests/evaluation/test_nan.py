"""A model that answers NaN is said to, with the set and the number of samples, wherever its score is shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.live import LiveModel
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.whole import Whole
from merging.plugins.task import HELD_OUT, Split, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.task_arithmetic import TaskArithmetic
from merging.testing.fixtures import TinyNet, blobs, tiny_numerics, tiny_pool, tiny_task
from merging.values.outcome import WORST, Outcome, is_score, unscored
from merging.values.recipe import Ensemble, Recipe
from tests.conftest import Merge

TASK = "python:tests.evaluation.test_nan:task"


class Normed(nn.Module):
    """A linear classifier behind a BatchNorm layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
        self.bn2 = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.bn2(self.bn(inputs)))
        return logits


def task() -> Task:
    return Task(
        name="normed", build=lambda pool: Normed(), held_out=blobs(120, seed=1), tests={"test": blobs(90, seed=2)}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound models whose base has negative variances: near it they are below zero."""
    torch.manual_seed(0)
    base = Normed().state_dict()
    (tmp_path / "pool").mkdir()
    save_file(
        base | {f"{layer}.running_var": torch.full((4,), -2.0) for layer in ("bn", "bn2")},
        tmp_path / "pool/base.safetensors",
    )
    for number in range(2):
        head = base["head.weight"] + 0.1 * number
        own = {"bn.running_var": torch.full((4,), 0.6), "bn2.running_var": torch.full((4,), 0.5), "head.weight": head}
        save_file(base | own, tmp_path / f"pool/m{number}.safetensors")
    return tmp_path / "pool"


def opened(folder: Path) -> ModelPool:
    return ModelPool.open([folder / "m*.safetensors"], folder / "base.safetensors")


FLAGS = ("--models", "pool/m*", "--base", "pool/base.safetensors", "--task", TASK)


@pytest.mark.parametrize("objective", ["accuracy", "nll"])
def test_the_run(merge: Merge, folder: Path, objective: str) -> None:
    ran = merge(
        "run",
        *FLAGS,
        "--strategy",
        "task-arithmetic",
        "-o",
        "strategy.scale=0.1",
        "--objective",
        objective,
        "--output",
        "out",
    )
    assert ran.code == 0, ran.err
    shown = " ".join(ran.out.split())
    report = json.loads(Path("out/report.json").read_text())
    card = Path("out/README.md").read_text()
    for said in (
        "task arithmetic: NaN for 120 of 120 samples (held-out), NaN for 90 of 90 samples (test)",
        "negative variance in 2 layers (bn, bn2)",
    ):
        assert said in shown
        assert said in card
        assert any(said in note for note in report["notes"])
    assert "1e+300" not in ran.out + card
    if objective == "nll":
        assert "NaN" in next(line for line in ran.out.splitlines() if line.startswith("held-out "))
    assert not any("best" in note and "NaN" in note for note in report["notes"]), "the other rows have none"
    (row,) = (row for row in merging.load_run("out").report.rows if row.strategy == "task-arithmetic")
    assert (row.held_out == WORST) == (objective == "nll"), "what was written is read"
    assert merge("report", "out", "--output", "rendered").code == 0
    for said in (merge("report", "out").out, merge("runs", ".").out, Path("rendered/benchmark.md").read_text()):
        assert "task-arithmetic" in said
        assert "1e+300" not in said


def test_a_plain_run_says_nothing_of_it(merge: Merge, folder: Path) -> None:
    ran = merge("run", *FLAGS, "--strategy", "uniform", "--output", "out")
    assert ran.code == 0, ran.err
    assert "NaN" not in ran.out
    assert "negative variance" not in ran.out
    assert '"nan"' not in Path("out/events.jsonl").read_text()


def test_evaluate(merge: Merge, folder: Path) -> None:
    words = ("run", *FLAGS[:4], "--strategy", "task-arithmetic", "-o", "strategy.scale=0.1", "--output", "out")
    assert merge(*words).code == 0
    for objective in ("accuracy", "nll"):
        ran = merge("evaluate", "out", "pool/m0.safetensors", "--task", TASK, "--objective", objective)
        assert ran.code == 0, ran.err
        shown = " ".join(ran.out.split())
        assert "note: out: NaN for 120 of 120 samples (held-out), NaN for 90 of 90 samples (test)" in shown
        assert "m0.safetensors: NaN" not in shown
        assert "1e+300" not in ran.out
    ran = merge("evaluate", "out", "--task", TASK, "--json")
    assert json.loads(ran.out)["models"][0]["sets"]["test"]["nan"] == 90
    assert "NaN for 90 of 90 samples (test)" in " ".join(ran.err.split())


def test_the_benchmark(merge: Merge, folder: Path) -> None:
    ran = merge(
        "benchmark",
        *FLAGS,
        "--strategies",
        "uniform,task-arithmetic",
        "-o",
        "task-arithmetic.scale=0.1",
        "--objective",
        "nll",
        "--output",
        "out",
    )
    assert ran.code == 0, ran.err
    said = "NaN for 120 of 120 samples (held-out), NaN for 90 of 90 samples (test)"
    assert said in " ".join(ran.out.split())
    assert said in Path("out/benchmark.md").read_text()
    assert "1e+300" not in ran.out + Path("out/benchmark.md").read_text()
    rows = {row["label"]: row for row in json.loads(Path("out/benchmark.json").read_text())["rows"]}
    assert said in rows["task-arithmetic"]["why"]
    assert "NaN" not in rows["uniform"]["why"]
    again = merge(
        "benchmark",
        *FLAGS,
        "--strategies",
        "uniform,task-arithmetic",
        "-o",
        "task-arithmetic.scale=0.1",
        "--objective",
        "nll",
        "--output",
        "out",
    )
    assert said in " ".join(again.out.split()), "what was kept is said again"
    assert said in " ".join(merge("report", "out").out.split()), "and read"


def test_single_models_of_a_benchmark(folder: Path) -> None:
    pool = ModelPool.open([folder / "m*.safetensors"])
    state = pool.checkpoints[0].load() | {"bn.running_var": torch.full((4,), -1.0)}
    save_file(state, folder / "m9.safetensors")
    pool = ModelPool.open([folder / "m*.safetensors"])
    found = merging.benchmark(pool, [merging.Uniform()], task=task())
    assert "m9: NaN for 120 of 120 samples (held-out), NaN for 90 of 90 samples (test)" in found.notes


@given(bad=st.sets(st.integers(0, 119)), value=st.sampled_from([math.nan, math.inf, -math.inf]), ensemble=st.booleans())
def test_samples_are_counted(tmp_path: Path, bad: set[int], value: float, ensemble: bool) -> None:
    """Inputs that make the model answer NaN, one by one; infinite ones give it a NaN too, by way of 0 · ∞."""
    held_out = blobs(120, seed=1)
    inputs = held_out.inputs.clone()
    inputs[sorted(bad), 0] = value
    pool = tiny_pool(tmp_path / "pool", models=2) if not (tmp_path / "pool").exists() else opened_tiny(tmp_path)
    whole = Whole().split(pool.tensors)
    live = LiveModel(Holes(), pool, whole, "cpu")
    with_holes = Task(name="holes", build=lambda pool: Holes(), held_out=Split.of(inputs, held_out.labels))
    evaluator = Evaluator.over(live, with_holes, NegativeLogLikelihood(), tiny_numerics(), Ledger(Journal(None)))
    recipes = [Recipe.single(row, whole) for row in pool.ingredients]
    merged = Ensemble(tuple(recipes), (1.0, 1.0)) if ensemble else recipes[0]
    outcome = evaluator.evaluate(merged)
    assert outcome.nan == len(bad)
    assert Outcome.from_json(outcome.to_json()).nan == len(bad)
    assert is_score(outcome.score) == (not bad)
    said = unscored({HELD_OUT: outcome}, "nll")
    assert said == (f"NaN for {len(bad)} of 120 samples (held-out)" if bad else "")


class Holes(TinyNet):
    """Answers NaN where the first input is not finite, for that sample alone."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs.nan_to_num(0.0, 0.0, 0.0))
        return torch.where(inputs[:, :1].isfinite(), logits, torch.nan)


def opened_tiny(folder: Path) -> ModelPool:
    return merging.testing.fixtures.open_tiny_pool(folder / "pool")


class Broken(WholeModelObjective):
    """Gives NaN for every model."""

    name: ClassVar[str] = "broken"

    def measure(self, model: nn.Module, split: merging.SplitView) -> float:
        return math.nan


def test_a_score_that_is_none_is_said(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", models=2)
    result = merging.merge(pool, merging.Uniform(), task=tiny_task(), objective=Broken(), baselines=False, tests=False)
    assert result.report.rows[-1].held_out == WORST
    assert "uniform soup: no finite broken (held-out)" in result.report.notes


def test_what_was_journalled_before_is_read() -> None:
    old = {"score": 0.5, "samples": 3, "correct": None, "seconds": 1.0, "passes": 1.0}
    assert Outcome.from_json(old).nan == 0
    assert Outcome.from_json(old).to_json() == old, "outcomes without a NaN are written as they always were"


def test_a_resumed_run_says_it_again(tmp_path: Path, folder: Path) -> None:
    first = merging.merge(opened(folder), TaskArithmetic(scale=0.1), task=task(), output=tmp_path / "out")
    again = merging.merge(opened(folder), TaskArithmetic(scale=0.1), task=task(), output=tmp_path / "out", resume=True)
    assert any("NaN for 120 of 120" in note for note in first.report.notes)
    assert again.report.notes == first.report.notes


def test_members_with_a_negative_variance(tmp_path: Path, folder: Path) -> None:
    pool = ModelPool.open([folder / "m*.safetensors"])
    state = pool.checkpoints[0].load() | {"bn2.running_var": torch.full((4,), -1.0)}
    save_file(state, folder / "m9.safetensors")
    pool = ModelPool.open([folder / "m*.safetensors"])
    result = merging.merge(pool, OutputEnsemble(), task=task(), output=tmp_path / "out", baselines=False)
    assert any("negative variance in 1 layer (bn2)" in note for note in result.report.notes)
    assert any("ensemble: NaN for 120 of 120 samples (held-out)" in note for note in result.report.notes)
    assert np.isfinite(result.report.rows[-1].held_out)

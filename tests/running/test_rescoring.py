"""One model, one score: what a run in bf16 reports is what fp32 says, and where fp32 says otherwise it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.looking.inspection import inspect_pool
from merging.looking.scoring import evaluate
from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.whole import Whole
from merging.plugins.progress import Silent
from merging.plugins.task import Split, Task
from merging.running.rescoring import Rescoring
from merging.running.run import merge
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.greedy import Greedy
from merging.strategies.uniform import Uniform
from merging.values.outcome import Outcome
from merging.values.partition import Partition
from merging.values.recipe import Recipe


class Wide(nn.Module):
    """Above a million parameters, and close decisions: bf16 sees some of them otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(16, 60_000), nn.Linear(60_000, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.body(x)))
        return logits


def data(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    return Split.of(torch.randn(count, 16, generator=generator), torch.randint(3, (count,), generator=generator))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPool, Task]:
    folder = tmp_path_factory.mktemp("wide")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = Wide().state_dict()
        for number in range(4):
            moved = {name: t + 0.003 * torch.randn(t.shape) for name, t in start.items()}
            save_file(moved, folder / f"m{number}.safetensors")
    tests = {"test": data(120, 1), "shifted": data(100, 2)}
    return ModelPool.open([folder]), Task(
        name="wide", build=lambda pool: Wide(), held_out=data(200, 3), tests=tests, shifts=("shifted",)
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Accuracy(), NegativeLogLikelihood()], ids=lambda o: o.name)
def test_run_benchmark_evaluate_and_inspect_give_a_model_one_score(
    wide: tuple[ModelPool, Task], tmp_path: Path, objective: Any
) -> None:
    pool, task = wide
    ran = merge(pool, Greedy(), task=task, objective=objective, precision="bf16", output=tmp_path / "run")
    assert ran.report.numerics["dtype"] == "bfloat16"
    alone = {c.name: evaluate(c, task, objective=objective) for c in pool.checkpoints}
    found = evaluate(tmp_path / "run", task, objective=objective)
    row = ran.report.merged
    assert row is not None
    assert row.held_out == found["held-out"].score
    assert dict(row.tests) == {name: found[name].score for name in task.tests}
    best = max(alone, key=lambda name: alone[name]["held-out"].score)
    single = ran.report.best_single
    assert single is not None
    assert single.ingredients == (best,)
    assert ran.report.best_single_name == best
    assert single.held_out == ran.report.top_single == alone[best]["held-out"].score
    assert dict(single.tests) == {name: alone[best][name].score for name in task.tests}

    methods = {"best": Best(), "greedy": Greedy(), "uniform": Uniform(), "ensemble": OutputEnsemble()}
    made = merging.benchmark(pool, methods, task=task, objective=objective, precision="bf16")
    for each in made.singles:
        assert each.held_out == alone[each.name]["held-out"].score
        assert dict(each.tests) == {name: alone[each.name][name].score for name in task.tests}
    rows = {each.strategy: each for each in made.rows}
    assert rows["best"].ingredients == (best,)
    for name in ("best", "greedy", "uniform"):
        other = next(r for r in ran.report.rows if r.strategy == name)
        assert rows[name].held_out == other.held_out
        assert dict(rows[name].tests) == dict(other.tests)
    exact = merging.benchmark(pool, {"ensemble": OutputEnsemble()}, task=task, objective=objective, precision="fp32")
    assert rows["ensemble"].held_out == exact.rows[0].held_out
    assert dict(rows["ensemble"].tests) == dict(exact.rows[0].tests)
    assert inspect_pool(pool, Whole(), task=task, objective=objective).scores == tuple(
        alone[name]["held-out"].score for name in pool.names
    )
    assert any("bf16" in note and "re-scored in fp32" in note for note in ran.report.notes)


def test_the_scores_of_a_bf16_search_really_differ(wide: tuple[ModelPool, Task]) -> None:
    """Otherwise the tests beside this one could not fail."""
    pool, task = wide
    journalled: list[float] = []

    class Listening(Silent):
        def best(self, outcome: Outcome, models: int) -> None:
            journalled.append(outcome.score)

    ran = merge(pool, Best(), task=task, objective=NegativeLogLikelihood(), precision="bf16", progress=Listening())
    assert ran.report.top_single not in journalled


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_is_resumed_in_bf16_ends_the_same(
    wide: tuple[ModelPool, Task], tmp_path: Path, precision: str
) -> None:
    pool, task = wide
    settings: dict[str, Any] = {"task": task, "objective": NegativeLogLikelihood(), "precision": precision}
    whole = merge(pool, Greedy(), **settings).report
    cut = merge(pool, Greedy(), **settings, max_evaluations=6, output=tmp_path / "run").report
    assert cut.status.startswith("--max-evaluations")
    assert cut.merged is not None
    found = evaluate(tmp_path / "run", task, objective=NegativeLogLikelihood())
    saved = cut.written
    assert saved is not None
    assert saved.held_out == found["held-out"].score
    again = merge(pool, Greedy(), **settings, output=tmp_path / "run", resume=True).report
    assert [row.held_out for row in again.rows] == [row.held_out for row in whole.rows]
    assert [row.tests for row in again.rows] == [row.tests for row in whole.rows]
    assert again.content_hash == whole.content_hash


@dataclass
class Scored:
    """An evaluator that knows everything already: names in a recipe → its score in fp32."""

    exact_scores: dict[tuple[str, ...], float]
    exact = False

    class numerics:
        dtype = "bfloat16"

    def foresee(self, wanted: object, *, record: bool) -> None:
        """Nothing is made beforehand."""

    def record(self, merged: Recipe, split: str = "held-out") -> Outcome:
        return Outcome(score=self.exact_scores[merged.names], samples=10, correct=np.packbits(np.ones(10, dtype=bool)))


def test_steps_that_fp32_reverses_are_told(wide: tuple[ModelPool, Task]) -> None:
    pool, _ = wide
    partition = Whole().split(pool.tensors)
    assert isinstance(partition, Partition)
    recipes = [Recipe.mean(pool.ingredients[:count], partition) for count in range(1, 5)]
    kept = [(recipe, Outcome(score=0.5 + 0.01 * n, samples=10)) for n, recipe in enumerate(recipes)]
    exact = dict(zip((r.names for r in recipes), (0.50, 0.51, 0.505, 0.52), strict=True))
    singles = {(name,): 0.3 for name in pool.names[1:]}
    made = Rescoring(Scored(exact | singles), pool, partition, Silent())  # type: ignore[arg-type]
    (note,) = made.reversals("greedy soup", kept, None)
    assert (
        note
        == "greedy soup: fp32 reverses 1 of 3 accepted steps: 0.51 to 0.52 (bf16), 0.51 to 0.505 in fp32 (3 models)"
    )
    tied = {recipe.names: 0.5 for recipe in recipes}
    (note,) = Rescoring(Scored(tied | singles), pool, partition, Silent()).reversals("x", kept, None)  # type: ignore[arg-type]
    assert note.startswith("x: fp32 reverses 3 of 3 accepted steps: "), "what is no better would not be accepted"
    made.best_single()
    assert made.reversals("x", kept[:2], Outcome(score=0.51, samples=10)) == []
    (note,) = made.reversals("x", kept[:2], Outcome(score=0.4, samples=10))
    assert note == "x: re-scored in fp32, the merge is below the best single model, m0 (0.4 against 0.5 held-out)"


def test_the_notes_of_a_reversal_reach_report_and_card(
    wide: tuple[ModelPool, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, task = wide
    monkeypatch.setattr(Rescoring, "reversals", lambda *given: ["fp32 says otherwise"])
    merge(pool, Greedy(), task=task, precision="bf16", output=tmp_path / "run")
    assert "fp32 says otherwise" in json.loads((tmp_path / "run" / "report.json").read_text())["notes"]
    found = merging.benchmark(pool, [Greedy()], task=task, precision="bf16")
    assert found.rows[0].why == "fp32 says otherwise"
    assert "fp32 says otherwise" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_lines_of_a_bf16_search_say_so(wide: tuple[ModelPool, Task]) -> None:
    from io import StringIO

    from rich.console import Console

    from merging.cli.showing.terminal import TerminalProgress

    pool, task = wide
    said: dict[str, str] = {}
    for precision in ("bf16", "fp32"):
        console = Console(file=StringIO(), width=200)
        with TerminalProgress(console) as progress:
            merge(pool, Greedy(), task=task, precision=precision, progress=progress)
        assert isinstance(console.file, StringIO)
        said[precision] = console.file.getvalue()
    lines = [line for line in said["bf16"].splitlines() if ": average" in line]
    assert len(lines) == 3
    assert all("% bf16, " in line for line in lines)
    assert "the best single model (bf16) is" in said["bf16"]
    assert "re-scored in fp32, the best single model is" in said["bf16"]
    assert "bf16" not in said["fp32"]
    assert "re-scored" not in said["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("asked", [3, 9, 14])
def test_an_interrupted_bf16_run_saves_by_fp32_scores(wide: tuple[ModelPool, Task], tmp_path: Path, asked: int) -> None:
    """Whatever is saved has the score that evaluate prints, and none of the rows that were scored is better."""
    pool, task = wide
    seen: list[int] = []

    class Counting(Silent):
        ranking = False  # whether a model is better than a guess has been looked at

        def stage(self, text: str, total: int | None = None) -> None:
            self.ranking = self.ranking or text == "scoring the single models"

        def advance(self, steps: int = 1) -> None:
            seen.extend([steps] if self.ranking else [])

    made = merge(
        pool,
        Greedy(),
        task=task,
        objective=NegativeLogLikelihood(),
        precision="bf16",
        output=tmp_path / "run",
        progress=Counting(),
        should_stop=lambda: len(seen) >= asked,
    )
    assert made.report.status == "interrupted"
    saved = made.report.written
    assert saved is not None
    found = evaluate(tmp_path / "run", task, splits=("held-out",), objective=NegativeLogLikelihood())
    assert saved.held_out == found["held-out"].score
    assert saved.held_out == max(row.held_out for row in made.report.rows)


def test_a_best_single_model_that_bf16_alone_has_ranked_is_said(wide: tuple[ModelPool, Task], tmp_path: Path) -> None:
    pool, task = wide

    class Leaving(Silent):
        stop = False

        def stage(self, name: str, total: int | None = None) -> None:
            self.stop = self.stop or name.startswith("single models, re-scored")

    leaving = Leaving()
    settings: dict[str, Any] = {"task": task, "precision": "bf16", "output": tmp_path / "run"}
    cut = merge(pool, Greedy(), **settings, progress=leaving, should_stop=lambda: leaving.stop).report
    assert cut.status == "interrupted"
    (note,) = [note for note in cut.notes if "by bf16 scores" in note]
    assert note.startswith(f"{cut.best_single_name} is the best single model")
    whole = merge(pool, Greedy(), **settings, resume=True).report
    assert not [note for note in whole.notes if "by bf16 scores" in note]

"""Stopped anywhere: every row is of its own strategy, and what is saved is the row that it is said to be."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from merging.errors import InterruptedRunError
from merging.optimizers.random import Random
from merging.partitioners.layer import Layer
from merging.plugins.progress import Silent
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.running.run import Result
from merging.running.run import merge as merge_models
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.strategies.greedy import Greedy
from merging.strategies.learned import Learned
from merging.strategies.manifoldmix import ManifoldMix
from merging.strategies.uniform import Uniform
from merging.testing import TinyNet, tiny_pool, tiny_problem, tiny_task
from merging.values.recipe import Recipe
from tests.conftest import Merge, spawn
from tests.stopping import after

pytestmark = pytest.mark.slow

MARK = b'"event":"strategy","name":"manifoldmix"'
MANIFOLD = ManifoldMix(budget=12, tau=0.9)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=5)


def stopped(pool: ModelPool, strategy: MixStrategy, count: int, **more: object) -> Result | None:
    arguments: dict[str, object] = {"task": tiny_task(), "partitioner": Layer(), "optimizer": Random()}
    try:
        return merge_models(pool, strategy, **(arguments | {"should_stop": after(count)} | more))  # type: ignore[arg-type]
    except InterruptedRunError:
        return None


def check(result: Result, pool: ModelPool, task: Task | None = None) -> None:
    """What must be true of every run, ended or not."""
    report = result.report
    rows = {row.strategy: row for row in report.rows}
    saved = rows[report.saved]
    assert report.written is saved
    assert isinstance(result.merge, Recipe)
    assert saved.ingredients == report.ingredients == result.merge.names
    assert report.content_hash == content_hash(result.state_dict())
    problem = tiny_problem(pool, task=task or tiny_task(), partitioner=Layer(), optimizer=Random())
    assert problem.evaluate(result.merge).score == pytest.approx(saved.held_out, abs=1e-12)
    assert bool(report.saved_instead) == (report.saved != report.strategy)
    if report.status == "interrupted" and report.saved != report.strategy:
        assert all(saved.held_out >= row.held_out for row in report.rows)
        mine = rows.get(report.strategy)
        assert mine is None or mine.held_out < saved.held_out
        assert ("no result yet" in report.saved_instead) == (mine is None)


def test_manifold_mix_stopped_after_any_evaluation(pool: ModelPool) -> None:
    whole = stopped(pool, MANIFOLD, 1 << 20)
    assert whole is not None
    finished = {row.strategy: row for row in whole.report.rows}
    best = finished["best"].ingredients
    saved, count = [], 0
    while True:
        result = stopped(pool, MANIFOLD, count)
        count += 1 if count < 40 else 7
        if result is None:
            continue
        report = result.report
        check(result, pool)
        saved.append(report.saved)
        if report.status == "finished":
            break
        rows = {row.strategy: row for row in report.rows}
        for name in ("best", "uniform", "greedy"):
            if "manifoldmix" in rows or report.saved not in (name, "best"):
                assert name not in rows or rows[name].held_out == finished[name].held_out
        if "manifoldmix" in rows:  # of its own making: the models that it has accepted, and no others
            kept = [str(facts["candidate"]) for facts in report.decisions if facts["accepted"]]
            if rows["manifoldmix"].evaluations < finished["manifoldmix"].evaluations:
                assert set(rows["manifoldmix"].ingredients) <= {*best, *kept, *report.pool}
                assert set(kept) <= {*rows["manifoldmix"].ingredients}
    assert {"best", "greedy", "manifoldmix"} <= set(saved)


@pytest.mark.parametrize("strategy", [Best(), Uniform(), Greedy(), Learned(epochs=1)], ids=lambda s: s.name)
def test_others_stopped_after_any_evaluation(strategy: MixStrategy, pool: ModelPool) -> None:
    count = 0
    while True:
        result = stopped(pool, strategy, count, tests=False)
        count += 3
        if result is not None:
            check(result, pool)
            if result.report.status == "finished":
                return


@pytest.mark.parametrize("baselines", [True, False])
def test_a_limit_ends_a_run_as_an_interruption_does(baselines: bool, pool: ModelPool) -> None:
    for limit in range(5, 45, 5):
        result = stopped(pool, MANIFOLD, 1 << 20, max_evaluations=limit, baselines=baselines)
        if result is None:
            continue
        check(result, pool)
        assert all(set(row.tests) == {"test", "shifted"} for row in result.report.rows)
        if result.report.saved_instead:
            assert f"when --max-evaluations {limit} was reached" in result.report.saved_instead


class NormNet(nn.Module):
    """A BatchNorm layer before the tiny one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.rest = nn.BatchNorm1d(4), TinyNet()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.norm(inputs))
        return logits


def norm_pool(folder: Path) -> ModelPool:
    """Models whose statistics are far apart, so that averaged ones would not do."""
    from safetensors.torch import load_file, save_file

    tiny_pool(folder / "tiny", models=4)
    for number in range(4):
        net = NormNet()
        net.rest.load_state_dict(load_file(folder / f"tiny/model_{number}.safetensors"))
        net.norm.running_mean = torch.full((4,), 0.3 * number)
        net.norm.running_var = torch.full((4,), 1.0 + number)
        save_file(net.state_dict(), folder / f"model_{number}.safetensors")
    return ModelPool.open([folder / "model_*.safetensors"])


def test_statistics_of_what_is_saved_are_measured_again(tmp_path: Path) -> None:
    pool, task, seen = norm_pool(tmp_path), replace(tiny_task(), build=lambda pool: NormNet()), set()
    for count in range(10, 400, 6):
        result = stopped(pool, MANIFOLD, count, task=task)
        if result is None:
            continue
        check(result, pool, task)
        if len(result.report.ingredients) > 1:
            assert any("were measured again" in note for note in result.report.notes)
            averaged = merge_models(pool, Uniform(), recalibrate=False).state_dict()["norm.running_mean"]
            assert not torch.equal(result.state_dict()["norm.running_mean"], averaged)
        seen.add(result.report.saved)
        if result.report.status == "finished":
            break
    assert {"greedy", "manifoldmix"} <= seen


def test_goes_on_to_the_same_bits_wherever_it_was_stopped(pool: ModelPool, tmp_path: Path) -> None:
    whole = stopped(pool, MANIFOLD, 1 << 20)
    assert whole is not None
    for count in range(20, 160, 23):
        folder = tmp_path / str(count)
        stopped(pool, MANIFOLD, count, output=folder)
        result = stopped(pool, MANIFOLD, 1 << 20, output=folder, resume=True)
        assert result is not None
        assert (result.report.status, result.report.saved) == ("finished", "manifoldmix")
        assert result.report.content_hash == whole.report.content_hash
        assert [row.held_out for row in result.report.rows] == [row.held_out for row in whole.report.rows]


def test_card_report_recipe_and_model_name_one_merge(pool: ModelPool, tmp_path: Path) -> None:
    said = set()
    for count in range(14, 160, 9):
        folder = tmp_path / str(count)
        result = stopped(pool, MANIFOLD, count, output=folder)
        if result is None:
            continue
        report = json.loads((folder / "report.json").read_text())
        card = (folder / "README.md").read_text()
        recipe = json.loads((folder / "recipe.json").read_text())
        assert (report["saved"], report["strategy"]) == (result.report.saved, "manifoldmix")
        assert [i["name"] for i in recipe["ingredients"]] == report["ingredients"]
        assert report["content_hash"] in card
        assert f"- best single model: {report['best_single']}\n" in card
        first = next(line for line in card.splitlines() if line.startswith("`model.safetensors` is "))
        first_words = card.split("\n---\n", 1)[1].strip().splitlines()[:3]  # behind what the Hub reads
        assert ("another model was written" in "".join(first_words)) == (report["saved"] != "manifoldmix")
        if report["saved"] == "manifoldmix":
            assert first.startswith("`model.safetensors` is a merge of")
            assert "by the strategy **manifoldmix**" in first
        else:
            label = {"greedy": "the greedy soup", "uniform": "the uniform soup", "best": "the best single model ("}
            assert first.startswith(f"`model.safetensors` is {label[report['saved']]}")
            assert "by the strategy" not in first
            assert ("which was better than manifoldmix" in first) == (report["validation"]["merged"] is not None)
        said.add(report["saved"])
    assert {"greedy", "manifoldmix"} <= said


def test_a_refused_merge_names_the_model_that_is_written(pool: ModelPool, tmp_path: Path) -> None:
    saved = set()
    for seed in range(6):
        folder = tmp_path / str(seed)
        result = stopped(pool, MANIFOLD, 1 << 20, certify_split=0.3, seed=seed, output=folder)
        assert result is not None
        assert result.report.certificate is not None
        name = "manifoldmix" if result.report.certificate.accepted else "best"
        assert result.report.saved == json.loads((folder / "report.json").read_text())["saved"] == name
        if name == "best":
            assert result.report.best_single_name == result.report.ingredients[0]
            assert f"is the best single model ({result.report.ingredients[0]})" in (folder / "README.md").read_text()
        saved.add(name)
    assert "best" in saved


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stands: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text.strip())

    def status(self, text: str) -> None:
        self.stands.append(text)


@pytest.mark.parametrize("baselines", [True, False])
def test_progress_and_report_name_the_best_single_model(baselines: bool, pool: ModelPool) -> None:
    told = Told()
    result = stopped(pool, MANIFOLD, 1 << 20, baselines=baselines, progress=told)
    assert result is not None
    singles = [merge_models(pool, MANIFOLD, task=tiny_task(), max_evaluations=5).report.best_single]
    assert singles[0] is not None
    name, score = singles[0].ingredients[0], f"{100 * singles[0].held_out:.2f} %"
    assert told.lines.count(f"the best single model is {name}, {score} held-out") == 1
    assert f"best {score}, {name}" in told.stands
    assert result.report.best_single_name == result.report.to_json()["best_single"] == name
    if result.report.best_single is not None:
        assert result.report.best_single.named == f"best single model ({name})"


def test_the_terminal_names_the_best_single_model_without_its_row(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "greedy", "--no-baselines", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert f"The best single model: {report['best_single']}, " in ran.out
    assert f"the best single model is {report['best_single']}, " in ran.err


@pytest.mark.slow
def test_control_c_while_the_strategy_searches(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    """A real signal, sent once the strategy's own searches have begun."""
    folder = tmp_path / "out"
    asked = ["--budget", "4000", "--optimizer", "random", "--output", "out", "--fail-unless", "better"]
    process = spawn([*tiny, *asked], tmp_path)
    journal = folder / "events.jsonl"
    while process.poll() is None and (not journal.exists() or MARK not in journal.read_bytes()):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err  # whatever a pipeline asked for
    report = json.loads((folder / "report.json").read_text())
    rows = {row["strategy"]: row for row in report["rows"]}
    assert report["ingredients"] == rows[report["saved"]]["ingredients"]
    assert ("saved: " in out) == (report["saved"] != "manifoldmix")
    evaluated = merge("evaluate", folder, "--split", "held-out", "--trust-code", "--json")
    assert evaluated.code == 0, evaluated.err
    anew = json.loads(evaluated.out)["models"][0]["sets"]["held-out"]["accuracy"]
    assert anew == pytest.approx(rows[report["saved"]]["held_out"], abs=1e-12)

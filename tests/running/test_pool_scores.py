"""A run's leaderboard: right numbers, the same model with and without it, interrupted, resumed, and left out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import merging
from merging import Best, Greedy, ModelPool, NegativeLogLikelihood, Uniform
from merging.looking.estimate import of_pool
from merging.running.plan import plan
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK, Merge


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def passes(folder: Path) -> Counter[str]:
    """Set → evaluations that the journal holds."""
    return Counter(event["split"] for event in journal(folder) if event["event"] == "evaluation")


def test_every_model_has_its_scores_soups_and_place(pool: ModelPool) -> None:
    task = tiny_task()
    report = merging.merge(pool, Greedy(), task=task).report
    board = report.leaderboard
    assert sorted(single.name for single in board) == list(pool.names)
    assert [single.held_out for single in board] == sorted((s.held_out for s in board), reverse=True)  # type: ignore[type-var]
    assert board[0].name == report.best_single_name
    rows = {row.strategy: row.ingredients for row in report.rows if row.strategy != "best"}
    for single in board:
        alone = merging.evaluate(pool.checkpoints[pool.names.index(single.name)], task)
        assert single.held_out == alone["held-out"].score
        assert single.tests == {name: alone[name].score for name in task.tests}
        assert single.shifted == sum(single.tests[name] for name in task.shifts) / len(task.shifts)
        assert single.soups == tuple(name for name, names in rows.items() if single.name in names)
    assert report.to_json()["leaderboard"][0]["name"] == board[0].name


def test_the_merge_is_the_same_without_it(merge: Merge, tiny: list[str]) -> None:
    whole, less = Path("whole"), Path("less")
    assert merge(*tiny, "--strategy", "greedy", "--output", whole).code == 0
    assert merge(*tiny, "--strategy", "greedy", "--output", less, "--no-pool-tests").code == 0
    for name in ("model.safetensors", "recipe.json"):
        assert (whole / name).read_bytes() == (less / name).read_bytes()
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (whole, less))
    assert one["evaluations"] == two["evaluations"]
    assert one["verdicts"] == two["verdicts"]
    assert all(single["tests"] and single["shifted"] is not None for single in one["leaderboard"])
    assert [single["held_out"] for single in one["leaderboard"]] == [s["held_out"] for s in two["leaderboard"]]
    assert not any(single["tests"] for single in two["leaderboard"])
    assert passes(whole)["test"] > passes(less)["test"]
    assert passes(whole)["held-out"] == passes(less)["held-out"]


def test_it_comes_after_everything_else_of_value(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "greedy", "--output", "whole").code == 0
    assert merge(*tiny, "--strategy", "greedy", "--output", "less", "--no-pool-tests").code == 0
    keys = [[event.get("key") for event in journal(Path(name))[1:-1]] for name in ("whole", "less")]
    assert keys[0][: len(keys[1])] == keys[1]


def test_it_is_said_and_how_to_leave_it_out(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "uniform", "--output", "out")
    said = " ".join(ran.err.split())
    assert "scoring the 5 models of the pool on the test sets (--no-pool-tests leaves this out)" in said
    ran = merge(*tiny, "--strategy", "uniform", "--output", "less", "--no-pool-tests")
    assert "models of the pool" not in ran.err


@pytest.mark.parametrize("flag", ["--no-pool-tests", "--no-tests"])
def test_what_is_left_out_has_no_columns(merge: Merge, tiny: list[str], flag: str) -> None:
    ran = merge(*tiny, "--strategy", "greedy", "--output", "out", flag)
    heads = next(line for line in ran.out.splitlines() if line.startswith("pool"))
    assert "held-out" in heads
    assert "test" not in heads.replace("held-out", "")
    assert "of shifts" not in heads
    card = Path("out/README.md").read_text().partition("## The models of the pool")[2]
    assert "test" not in next(line for line in card.splitlines() if line.startswith("| model"))


def test_merge_toml_and_keyword_say_the_same(merge: Merge, pool_folder: Path, pool: ModelPool) -> None:
    Path("merge.toml").write_text(
        f'[task]\nname = "{TASK}"\n[pool]\nmodels = ["{pool_folder}/model_*.safetensors"]\n'
        '[run]\nstrategy = "uniform"\noutput = "out"\npool_tests = false\n'
    )
    assert merge("run", "--trust-code").code == 0
    assert not any(single["tests"] for single in json.loads(Path("out/report.json").read_text())["leaderboard"])
    report = merging.merge(pool, Uniform(), task=tiny_task(), pool_tests=False).report
    assert not any(single.tests for single in report.leaderboard)


def test_models_that_nobody_ranked_are_scored_in_no_budget(pool: ModelPool) -> None:
    report = merging.merge(pool, Uniform(), task=tiny_task(), baselines=False, max_evaluations=1).report
    assert report.evaluations == 1
    assert all(single.held_out is not None and single.tests for single in report.leaderboard)
    assert report.best_single_name == report.leaderboard[0].name
    verdicts = {verdict.set: verdict for verdict in report.verdicts}
    whole = merging.merge(pool, Uniform(), task=tiny_task()).report
    assert verdicts == {verdict.set: verdict for verdict in whole.verdicts}, "as with the baselines"
    assert verdicts["test"].tested


def test_without_a_task_there_is_none(pool: ModelPool) -> None:
    assert merging.merge(pool, Uniform()).report.leaderboard == ()


def test_equal_models_are_scored_once(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", models=4, equal=True)
    report = merging.merge(pool, Greedy(), task=tiny_task(), output=tmp_path / "out").report
    assert len(report.leaderboard) == 4
    assert (
        passes(tmp_path / "out")["test"] == 2
    )  # the best, the greedy soup and all models are one; the average of four
    assert [single.name for single in report.leaderboard] == list(pool.names)


def test_interrupted_there_and_resumed(tmp_path: Path, pool: ModelPool) -> None:
    task, out = tiny_task(), tmp_path / "out"
    whole = merging.merge(pool, Greedy(), task=task, output=tmp_path / "whole").report
    asked: list[bool] = []

    class Stops(merging.Silent):
        def stage(self, text: str, total: int | None = None) -> None:
            del total
            asked.extend([True] * ("of the pool" in text))

    begun = merging.merge(
        pool, Greedy(), task=task, output=out, progress=Stops(), should_stop=lambda: bool(asked)
    ).report
    assert begun.status == "interrupted"
    assert {row.strategy: row.tests for row in begun.rows} == {row.strategy: row.tests for row in whole.rows}
    assert [s.held_out for s in begun.leaderboard] == [s.held_out for s in whole.leaderboard]
    ended = merging.merge(pool, Greedy(), task=task, output=out, resume=True).report
    assert ended.leaderboard == whole.leaderboard
    assert ended.content_hash == whole.content_hash == begun.content_hash


def test_scores_of_another_objective_are_its_own(pool: ModelPool) -> None:
    report = merging.merge(pool, Best(), task=tiny_task(), objective=NegativeLogLikelihood()).report
    best = report.best_single
    assert best is not None
    assert report.leaderboard[0].held_out == best.held_out < 0
    assert report.leaderboard[0].tests == best.tests


@pytest.mark.parametrize("baselines", [True, False])
def test_the_estimate_knows_these_passes(pool: ModelPool, tmp_path: Path, baselines: bool) -> None:
    task = tiny_task()
    sizes = {"held-out": len(task.held_out), **{name: len(split) for name, split in task.tests.items()}}
    counted = dict[bool, int]()
    for wanted in (True, False):
        told: dict[str, Any] = {"task": task, "baselines": baselines, "pool_tests": wanted}
        merging.merge(pool, Uniform(), **told, output=tmp_path / str(wanted))
        counted[wanted] = sum(sizes[name] * many for name, many in passes(tmp_path / str(wanted)).items())
    assert of_pool(plan(pool, Uniform(), task=task, baselines=baselines)) == counted[True] - counted[False] > 0
    assert of_pool(plan(pool, Uniform(), task=task, pool_tests=False)) == 0
    assert of_pool(plan(pool, Uniform(), task=task, tests=False)) == 0

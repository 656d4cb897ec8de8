"""``merge evaluate``: the same numbers as a run's report, and paired comparisons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.testing import tiny_task
from merging.values.outcome import Outcome
from tests.conftest import TASK, Merge


@pytest.fixture
def run(merge: Merge, tiny: list[str], tmp_path: Path) -> Path:
    ran = merge(*tiny, "--strategy", "greedy", "--output", "out")
    assert ran.code == 0, ran.err
    return tmp_path / "out"


def test_a_run_scores_as_its_report_says(merge: Merge, run: Path, pool_folder: Path) -> None:
    """The folder, its model and its recipe are the same model; the task is the run's own."""
    report = json.loads((run / "report.json").read_text())
    row = next(row for row in report["rows"] if row["strategy"] == "greedy")
    for what in (run, run / "model.safetensors", run / "recipe.json"):
        ran = merge("evaluate", what, *([] if what == run else ["--task", TASK]), "--json", "--trust-code")
        assert ran.code == 0, ran.err
        sets = json.loads(ran.out)["models"][0]["sets"]
        assert sets["held-out"]["score"] == row["held_out"]
        assert {name: sets[name]["score"] for name in ("test", "shifted")} == row["tests"]


def test_two_models_are_compared_sample_by_sample(merge: Merge, pool_folder: Path) -> None:
    files = [pool_folder / f"model_{number}.safetensors" for number in (0, 3)]
    ran = merge("evaluate", *files, "--task", TASK, "--split", "test", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    task = tiny_task()
    hits = []
    for file in files:
        module = task.build(None)  # type: ignore[arg-type]
        module.load_state_dict(load_file(file))
        hits.append(module.eval()(task.tests["test"].inputs).argmax(1) == task.tests["test"].labels)
    assert [m["sets"]["test"]["accuracy"] for m in found["models"]] == [float(h.double().mean()) for h in hits]
    pair = found["paired"]["test"]
    assert pair["gained"] == int((hits[1] & ~hits[0]).sum())
    assert pair["lost"] == int((hits[0] & ~hits[1]).sum())
    assert list(found["paired"]) == ["test"]


def test_members_of_the_tasks_own_pool_go_by_name(merge: Merge) -> None:
    ran = merge("evaluate", "model_00", "model_01", "--task", "digits", "--split", "held-out")
    assert ran.code == 0, ran.err
    assert "95.88 %" in ran.out
    assert "from model_00" in ran.out.replace("\n", " ")


def test_members_of_the_pool_of_merge_toml_go_by_name(merge: Merge, run: Path, pool_folder: Path) -> None:
    expected = json.loads(merge("evaluate", pool_folder / "model_2.safetensors", "--task", TASK, "--json").out)
    inside = json.loads(merge("evaluate", "model_2", run, "--trust-code", "--json").out)  # the pool of that run
    assert inside["models"][0]["sets"]["test"]["score"] == expected["models"][0]["sets"]["test"]["score"]
    Path("merge.toml").write_text(f'[task]\nname = "{TASK}"\n[pool]\nmodels = ["{pool_folder}/model_*.safetensors"]\n')
    ran = merge("evaluate", "model_2", "--trust-code", "--json")
    assert json.loads(ran.out)["models"][0]["sets"].keys() == expected["models"][0]["sets"].keys()
    assert json.loads(ran.out)["models"][0]["sets"]["test"]["score"] == expected["models"][0]["sets"]["test"]["score"]
    ran = merge("evaluate", "modle_2", "--trust-code")
    assert (ran.code, "did you mean 'model_2'" in ran.err) == (2, True)


def test_other_objectives_score_too(merge: Merge, pool_folder: Path) -> None:
    ran = merge("evaluate", pool_folder / "model_0.safetensors", "--task", TASK, "--objective", "nll", "--json")
    assert ran.code == 0, ran.err
    entry = json.loads(ran.out)["models"][0]["sets"]["test"]
    assert entry["score"] < 0 < entry["accuracy"]


def test_wilson_interval_against_the_formula() -> None:
    import numpy as np

    outcome = Outcome(score=0.9, samples=100, correct=np.packbits(np.arange(100) < 90))
    z, p, n = 1.959963984540054, 0.9, 100
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert outcome.interval == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.safetensors", "--task", TASK], "no such checkpoint"),
        (["model_99", "--task", "digits"], "did you mean 'model_09'"),
        (["M", "--task", TASK, "--split", "tset"], "did you mean 'test'"),
        (["M"], "nothing to score on"),
        (["M", "--task", "digits"], "does not fit"),
        (["M", "--task", TASK, "--objective", "acuracy"], "did you mean 'accuracy'"),
        (["R", "--task", TASK], "pass --models"),
    ],
)
def test_mistakes_are_one_line(
    merge: Merge, pool_folder: Path, tmp_path: Path, run: Path, arguments: list[str], said: str
) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    for ingredient in recipe["ingredients"]:
        ingredient["file"] = "/gone/away.safetensors"
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    torch.save({}, tmp_path / "empty.pt")
    known = {"M": str(pool_folder / "model_0.safetensors"), "R": str(tmp_path / "recipe.json")}
    ran = merge("evaluate", *(known.get(argument, argument) for argument in arguments))
    assert ran.code == 2, ran.out
    errors = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_runs_python_task_needs_trust(merge: Merge, run: Path) -> None:
    ran = merge("evaluate", run)
    assert ran.code == 2
    assert "--trust-code" in ran.err


def test_other_objectives_are_named_and_not_in_percent(merge: Merge, pool_folder: Path) -> None:
    """Evaluate, inspect and the line between two models say what their numbers are."""
    pool = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--objective", "balanced-accuracy"]
    one, two = (str(pool_folder / f"model_{number}.safetensors") for number in (0, 1))
    line = ("inspect", "--interpolate", one, two, "--steps", "2", *pool)
    for arguments in (("evaluate", one, *pool), ("inspect", *pool), line):
        ran = merge(*arguments)
        assert ran.code == 0, ran.err
        scores = [row for row in ran.out.splitlines() if re.match(r"held-out +120|0 +model_0| *0\.00 ", row)]
        assert scores, ran.out
        assert all(re.search(r" 0\.\d{3}", row) for row in scores)
        assert "balanced-accuracy" in ran.out
        if "inspect" not in arguments or "--interpolate" in arguments:  # distances are in percent
            assert "%" not in ran.out.replace("95 %", "")

"""``merge evaluate``: the same numbers as a run's report, and paired comparisons."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from safetensors.torch import load_file

import merging
from merging import MergingError, ModelPool
from merging.testing import tiny_task
from merging.values.outcome import Outcome
from tests.conftest import TASK, Merge

SHIFTED = ("printed", "inverted", "rotated", "shifted", "outlined")


@pytest.fixture
def run(merge: Merge, tiny: list[str], tmp_path: Path) -> Path:
    ran = merge(*tiny, "--strategy", "greedy", "--output", "out")
    assert ran.code == 0, ran.err
    return tmp_path / "out"


def test_a_run_scores_as_its_report_says(merge: Merge, run: Path, pool_folder: Path) -> None:
    """The folder, its model and its recipe are the same model; the task is the run's own, also by a pattern."""
    report = json.loads((run / "report.json").read_text())
    row = next(row for row in report["rows"] if row["strategy"] == "greedy")
    for what in (run, run / "model.safetensors", run / "recipe.json", run.parent / "ou*"):
        ran = merge("evaluate", what, "--json", "--trust-code")
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
        module = task.build(None)
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
    assert "over model_00" in ran.out.replace("\n", " ")
    assert "Against model_00, by McNemar:" in ran.out


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


def test_many_models_are_ranked_each_with_its_interval(merge: Merge, pool_folder: Path) -> None:
    files = [pool_folder / f"model_{number}.safetensors" for number in range(4)]
    ran = merge("evaluate", *files, "--task", TASK, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    scores = [model["sets"]["held-out"]["score"] for model in found["models"]]
    assert scores == sorted(scores, reverse=True)
    assert found["reference"] == found["models"][0]["model"]
    assert found["ranked_by"] == "held-out"
    for model in found["models"]:
        alone = json.loads(
            merge("evaluate", pool_folder / f"{model['model']}.safetensors", "--task", TASK, "--json").out
        )
        for name, entry in alone["models"][0]["sets"].items():
            assert entry["score"] == model["sets"][name]["score"]
            assert model["sets"][name]["interval"] == entry["interval"]
    tested = [verdict for model in found["models"] for verdict in model["verdicts"]]
    assert {verdict["set"] for verdict in tested} == {"test", "shifted"}  # one shifted set is its own average
    primary = [verdict for verdict in tested if verdict["family"] == "primary"]
    assert {verdict["tests"] for verdict in primary} == {len(primary)} == {6}
    assert all(verdict["corrected"] >= verdict["p"] for verdict in tested)
    assert found["models"][0]["verdicts"] == []


def test_the_ranking_on_the_screen(merge: Merge, pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = merge("evaluate", pool_folder / "model_*.safetensors", "--task", TASK)
    assert ran.code == 0, ran.err
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    rows = [line for line in ran.out.splitlines() if line.startswith("model_")]
    assert len(rows) == 5  # one shifted set is its own average
    assert "p=" not in rows[0]
    assert all("p=" in row or "p<" in row for row in rows[1:5])
    assert rows[0].split()[1] == max((row.split()[1] for row in rows), key=float)


def test_several_shifted_sets_have_an_average(merge: Merge) -> None:
    wanted = ["model_0[0-2]", "--task", "digits", *(f"--split={name}" for name in SHIFTED)]
    found = json.loads(merge("evaluate", *wanted, "--json").out)
    for model in found["models"]:
        mean = model["averages"]["average of shifts"]
        assert mean["score"] == pytest.approx(sum(model["sets"][name]["score"] for name in SHIFTED) / len(SHIFTED))
        low, high = mean["score_interval"]
        assert low < mean["score"] < high
    assert found["ranked_by"] == "printed"
    families = {verdict["set"]: verdict["family"] for verdict in found["models"][1]["verdicts"]}
    assert families == dict.fromkeys(SHIFTED, "secondary") | {"average of shifts": "primary"}


@pytest.mark.parametrize("how", ["folder", "pattern", "run", "mixed"])
def test_several_are_named_in_one_word(merge: Merge, run: Path, pool_folder: Path, tmp_path: Path, how: str) -> None:
    models = [f"model_{number}" for number in range(5)]
    said, found = {
        "folder": ([str(pool_folder)], [*models, "base"]),
        "pattern": ([f"{pool_folder}/model_*.safetensors"], models),
        "run": ([f"{tmp_path}/*", "model_[01]"], ["out", "model_0", "model_1"]),
        "mixed": (
            [f"{run}/recipe.json", "model_1", "model_1", f"{pool_folder}/model_2.safetensors"],
            ["recipe", "model_1", "model_2", "out"],
        ),
    }[how]
    flags = ["--trust-code", run] if how in ("run", "mixed") else ["--task", TASK]
    ran = merge("evaluate", *said, *flags, "--split", "test", "--json")
    assert ran.code == 0, ran.err
    assert sorted(model["model"] for model in json.loads(ran.out)["models"]) == sorted(found)


def test_equal_weights_are_scored_once_and_said(merge: Merge, run: Path, pool_folder: Path) -> None:
    files = [run / "model.safetensors", run / "recipe.json", pool_folder / "model_0.safetensors"]
    ran = merge("evaluate", *files, "--task", TASK, "--trust-code", "--json")
    assert ran.code == 0, ran.err
    models = {model["model"]: model for model in json.loads(ran.out)["models"]}
    assert {name: model["same_weights_as"] for name, model in models.items()} == {
        "model": None,
        "recipe": "model",
        "model_0": None,
    }
    assert models["recipe"]["sets"] == models["model"]["sets"]  # the seconds, too: it is one pass


def test_all_slips_are_told_before_any_work(merge: Merge, pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before torch is loaded: nothing that the command does after its names were read is reached."""

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr("merging.cli.asking.resolve.plugins", reached)
    monkeypatch.setattr("merging.storage.checkpoint.Checkpoint.__init__", reached)
    model = pool_folder / "model_0.safetensors"
    ran = merge("evaluate", model, "gone.pt", "no/such/*", "--task", "digits", "--split", "tset", "--split", "printd")
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if "error:" in line]
    for said in ("gone.pt", "no models match 'no/such/*'", "did you mean 'test'", "did you mean 'printed'"):
        assert said in line
    Path("merge.toml").write_text('[task]\nmodel = "timm:resnet18"\nheld_out = "a"\nshifts = {night = "b"}\n')
    ran = merge("evaluate", model, "--split", "nigth")
    assert (ran.code, "did you mean 'night'" in ran.err) == (2, True)


def test_models_that_do_not_fit_are_all_told(merge: Merge, pool_folder: Path) -> None:
    for name in ("one", "two"):
        torch.save({name: torch.ones(3)}, f"{name}.pt")
    ran = merge("evaluate", "one.pt", pool_folder / "model_0.safetensors", "two.pt", "--task", TASK)
    assert ran.code == 2
    assert "one" in ran.err
    assert "two" in ran.err
    assert "scoring" not in ran.err


def test_the_same_from_python(pool_folder: Path) -> None:
    pool, task = ModelPool.open([pool_folder / "model_*.safetensors"]), tiny_task()
    found = merging.evaluate_all(pool, task)
    assert {model.name for model in found.models} == set(pool.names)
    for model in found.models:
        alone = merging.evaluate(pool.checkpoints[pool.names.index(model.name)], task)
        assert {name: o.score for name, o in model.outcomes.items()} == {name: o.score for name, o in alone.items()}
    named = merging.evaluate_all({"x": pool.checkpoints[0], "y": pool.checkpoints[1].path}, task, splits=["test"])
    assert {model.name for model in named.models} == {"x", "y"}
    assert named.by == "test"
    assert named.models[1].verdict("test") is not None
    with pytest.raises(MergingError, match=r"gone\.pt.*unknown set"):
        merging.evaluate_all(["gone.pt"], task, splits=["tset"])


def test_held_out_data_that_chose_a_run_are_no_test_of_it(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    """A soup that looked at them cannot pass by them; an average of all, which did not, can."""
    one = str(pool_folder / "model_1.safetensors")
    for strategy, family in (("greedy", "selection"), ("uniform", "primary")):
        assert merge(*tiny, "--strategy", strategy, "--output", strategy).code == 0
        for what in (strategy, f"{strategy}/recipe.json", f"{strategy}/model.safetensors"):
            asked = ("evaluate", one, what, "--task", TASK, "--split", "held-out")
            (verdict,) = json.loads(merge(*asked, "--json").out)["verdicts"]
            assert (verdict["set"], verdict["family"]) == ("held-out", family)
            ran = merge(*asked)
            assert ("Held-out data chose" in ran.out) == (strategy == "greedy")
        ran = merge(*asked, "--fail-unless", "not-worse")
        assert ran.code == (3 if strategy == "greedy" else 0), ran.err
    runs = {name: merging.load_run(name) for name in ("greedy", "uniform")}
    ranking = merging.evaluate_all(runs, tiny_task(), splits=["test"])
    assert {model.name: model.chosen for model in ranking.models} == {"greedy": True, "uniform": False}
    report = json.loads(Path("greedy/report.json").read_bytes())
    Path("greedy/report.json").write_text(json.dumps(report | {"task": "another"}))
    (verdict,) = json.loads(merge("evaluate", one, "greedy", *asked[3:], "--json").out)["verdicts"]
    assert verdict["family"] == "primary", "held-out data of another task had no say"


def test_runs_on_several_tasks_need_a_task(merge: Merge, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, "other")
    lines = Path("other/events.jsonl").read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    for change, said in (({"task": "animals"}, "on animals"), ({"data": {"held-out": "0"}}, "with other data")):
        Path("other/events.jsonl").write_text(json.dumps(header | change) + "\n" + "".join(lines[1:]))
        ran = merge("evaluate", run, "other", "--trust-code")
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert "--task" in ran.err
        assert merge("evaluate", run, "other", "--task", TASK, "--split", "test").code == 0


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_models_fit_any_screen(
    merge: Merge, pool_folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, width: int
) -> None:
    """Nothing but single long words is wider, no line ends with spaces, no score is cut, names differ."""
    monkeypatch.setenv("COLUMNS", str(width))
    files = []
    for number, name in enumerate(
        ("a_model_with_quite_a_long_name_1", "a_model_with_quite_a_long_name_2", "日本語のモデル")
    ):
        files.append(Path(f"{name}.safetensors"))
        shutil.copy(pool_folder / f"model_{number}.safetensors", files[-1])
    asked = ("evaluate", *(path.absolute() for path in files[:count]), "--task", TASK)
    ran, found = merge(*asked), json.loads(merge(*asked, "--json").out)
    lines = ran.out.splitlines()
    assert [line for line in lines if cell_len(line) > width and " " in line.strip()] == []
    assert [line for line in lines if line != line.rstrip()] == []
    for model in found["models"]:
        for name in ("held-out", "test"):
            assert f"{100 * model['sets'][name]['score']:.2f}" in ran.out
    if count == 2:
        assert ran.out.count(str(Path.cwd())) == 2, "a path stands once"
        assert "a_model_with_quite_a_long_name_2: " in lines[0]
    if count == 3:
        rows = [line.split()[0] for line in lines if re.match(r"(a_|日|\d:)\S* +\d\d\.\d\d ", line)]
        assert len(set(rows)) == 3

"""Runs read back from their folders: every kind of merge, interrupted ones, without their models; and rendered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import merging
from merging.errors import FolderError, MergingError, OptionError, RecipeError, StrategyError
from merging.partitioners.layer import Layer
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool
from merging.testing.fixtures import tiny_task

KINDS = {
    "recipe": merging.Greedy(),
    "weights": merging.Ties(),
    "ensemble": merging.OutputEnsemble(),
    "without a task": merging.Uniform(),
}


@dataclass
class Run:
    """A run in a folder of its own, and what it returned."""

    pool: Path
    out: Path
    result: merging.Result


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def made(strategy: merging.MixStrategy, *, scored: bool = True, **more: object) -> Run:
        pool = tiny_pool(tmp_path / "pool")
        out = tmp_path / "runs" / strategy.name
        task = {"task": tiny_task(), "partitioner": Layer()} if scored else {}
        return Run(tmp_path / "pool", out, merging.merge(pool, strategy, output=out, **task, **more))  # type: ignore[arg-type]

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_what_it_was_and_needs_no_models(kind: str, run: Callable[..., Run]) -> None:
    made = run(KINDS[kind], scored=kind != "without a task")
    loaded = merging.load_run(made.out)
    assert loaded.report == made.result.report
    assert type(loaded.merge) is type(made.result.merge)
    assert loaded.merge.ingredients == made.result.merge.ingredients
    assert repr(loaded) == repr(made.result)
    assert loaded.pool.names
    if isinstance(made.result.merge, merging.Recipe):
        assert loaded.recipe.to_json() == made.result.recipe.to_json()
    shutil.rmtree(made.pool)
    loaded = merging.load_run(str(made.out))
    assert loaded.to_frame().equals(made.result.to_frame())
    with pytest.raises(RecipeError, match="is no longer at"):
        _ = loaded.pool
    if kind == "ensemble":
        with pytest.raises(StrategyError, match="an ensemble of 4 members is no single model"):
            loaded.state_dict()
        return
    state, written = loaded.state_dict(), load_file(made.out / "model.safetensors")
    assert state.keys() == written.keys()
    assert all(torch.equal(state[name], written[name]) for name in written)


def test_without_its_model_file_it_is_computed_again(run: Callable[..., Run]) -> None:
    made = run(merging.Greedy())
    before = load_file(made.out / "model.safetensors")
    (made.out / "model.safetensors").unlink()
    loaded = merging.load_run(made.out / "report.json")
    again = loaded.state_dict()
    assert all(torch.equal(again[name], before[name]) for name in before)
    (made.out / "recipe.json").unlink()
    with pytest.raises(RecipeError, match="neither a recipe nor a model"):
        merging.load_run(made.out)


def test_members_keep_what_was_measured_for_them(tmp_path: Path) -> None:
    from merging.mixing.writing import Writing
    from merging.storage import folder as folders
    from merging.storage.result import write_beside

    pool = tiny_pool(tmp_path / "pool")
    name = next(iter(pool.tensors))
    shape = pool.tensors[name][0]
    recipe = merging.Recipe.mean(pool.ingredients, merging.Whole().split(pool.tensors))
    measured = merging.Recipe(recipe.ingredients, recipe.partition, recipe.coefficients, {name: torch.full(shape, 7.0)})
    report = merging.merge(pool, merging.Uniform()).report
    ensemble = merging.Ensemble((measured, recipe), (1.0, 1.0))
    with folders.writing(tmp_path / "out") as aside:
        Writing().write(ensemble, pool, aside, merging.Silent(), lambda: False)
        write_beside(aside, ensemble, report.to_json(), "")
    loaded = merging.load_run(tmp_path / "out").merge
    assert isinstance(loaded, merging.Ensemble)
    assert list(loaded.members[0].overrides) == [name]
    assert torch.equal(loaded.members[0].overrides[name], torch.full(shape, 7.0))
    assert loaded.members[1].to_json() == recipe.to_json()
    assert loaded.members[0].key() == measured.key()


def test_an_interrupted_run_is_read(run: Callable[..., Run]) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 60

    made = run(merging.ManifoldMix(), should_stop=stop)
    loaded = merging.load_run(made.out)
    assert str(loaded.report.state) == "interrupted"
    assert loaded.report == made.result.report
    assert "interrupted" in repr(loaded)
    assert loaded.state_dict()


def test_a_folder_that_is_none_says_where_the_nearest_is(run: Callable[..., Run], tmp_path: Path) -> None:
    made = run(merging.Greedy())
    with pytest.raises(FolderError, match=r"unknown run '.*gredy'; did you mean '.*runs/greedy'"):
        merging.load_run(made.out.with_name("gredy"))
    with pytest.raises(FolderError, match=r"runs holds no run itself, but 1 run: .*runs/greedy$"):
        merging.load_run(made.out.parent)
    with pytest.raises(FolderError, match=r"there is no run in .*: a run's folder holds report\.json"):
        merging.load_run(tmp_path / "a" / "b")
    (made.out / "report.json").unlink()
    with pytest.raises(FolderError, match="has written no result yet; go on with it by `resume`"):
        merging.load_run(made.out)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "benchmark.json").touch()
    with pytest.raises(FolderError, match=r"holds a benchmark, no run; read .*benchmark\.json with Benchmark\.read"):
        merging.load_run(tmp_path / "bench")


@pytest.mark.parametrize("name", ["report.json", "recipe.json", "ensemble.json"])
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"members": [{}]}', "\x00"])
def test_damage_is_one_line(run: Callable[..., Run], name: str, text: str) -> None:
    made = run(merging.OutputEnsemble() if name == "ensemble.json" else merging.Greedy())
    (made.out / name).write_text(text)
    with pytest.raises(MergingError, match=name.replace(".", r"\.")) as caught:
        merging.load_run(made.out)
    assert len(str(caught.value).splitlines()) == 1


def test_the_lineage_of_weights_may_be_damaged(run: Callable[..., Run]) -> None:
    made = run(merging.Ties())
    path = made.out / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lineage": [{"nobody": 1}]}))
    with pytest.raises(RecipeError, match=r"the lineage in .*report\.json is damaged"):
        merging.load_run(made.out)


def test_a_recipe_is_one_or_says_why_not(run: Callable[..., Run], pool: ModelPool) -> None:
    recipe = run(merging.Greedy()).result.recipe
    assert isinstance(recipe, merging.Recipe)
    ties = merging.merge(pool, merging.Ties())
    with pytest.raises(RecipeError, match="ties is no weighted sum of the models: it has no recipe"):
        _ = ties.recipe
    ensemble = merging.merge(pool, merging.OutputEnsemble(), task=tiny_task())
    with pytest.raises(RecipeError, match="an ensemble has a recipe for each of 4 members: see its members"):
        _ = ensemble.recipe


def test_a_run_is_rendered_as_a_benchmark_is(run: Callable[..., Run], tmp_path: Path) -> None:
    made = run(merging.Greedy())
    for number, found in enumerate((made.result, merging.load_run(made.out), made.result.report)):
        files = merging.render(found, tmp_path / str(number))
        assert {"benchmark.html", "benchmark.json"} <= {file.name for file in files}
        rows = merging.Benchmark.read(files[0]).rows
        assert [row.strategy for row in rows] == ["best", "uniform", "greedy"]
    with pytest.raises(OptionError, match=r"render writes files: give it a folder, as in render\(found, 'folder'\)"):
        merging.render(made.result.report)
    with pytest.raises(OptionError, match=r"render was given a dict .*; it takes a benchmark's results, a run's, or"):
        merging.render({"a": 1}, tmp_path)  # type: ignore[arg-type]


def test_the_version_is_the_packages() -> None:
    assert merging.__version__ == version("merging")
    with pytest.raises(AttributeError):
        _ = merging.__versions__  # type: ignore[attr-defined]


def test_a_run_goes_where_a_result_goes(run: Callable[..., Run]) -> None:
    made = run(merging.Uniform())
    loaded = merging.load_run(made.out)
    state = made.result.state_dict()
    for again in (merging.apply(loaded, models=made.pool), merging.apply(made.result)):
        assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    scores = [merging.evaluate(model, tiny_task())["test"].score for model in (loaded, made.result, made.out)]
    assert len(set(scores)) == 1
    ranking = merging.evaluate_all([loaded, state], tiny_task())
    assert [model.name for model in ranking.models] == ["model_0", "model_1"]
    assert ranking.models[1].same_as == "model_0"
    assert merging.answer(made.result) == merging.answer(loaded.report)


def test_a_recipe_that_a_run_does_not_have_is_told(run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="holds a Weights, which has no recipe"):
        merging.apply(run(merging.Ties()).out)


@pytest.mark.parametrize("given", [None, 3, [], b"x"])
@pytest.mark.parametrize("read", [merging.load_run, merging.Report.from_json, merging.Benchmark.read])
def test_what_is_no_path_is_told(read: Callable[..., object], given: object) -> None:
    with pytest.raises(MergingError):
        read(given)


def test_a_benchmark_is_read_by_the_path_of_its_folder_too(tmp_path: Path) -> None:
    found = merging.benchmark(tiny_pool(tmp_path / "pool"), ["uniform"], task=tiny_task(), output=tmp_path / "out")
    for path in (tmp_path / "out", str(tmp_path / "out"), str(tmp_path / "out/benchmark.json")):
        assert merging.Benchmark.read(path).to_json() == found.to_json()
    with pytest.raises(FolderError, match="cannot read a benchmark's result at"):
        merging.Benchmark.read(str(tmp_path / "nope"))

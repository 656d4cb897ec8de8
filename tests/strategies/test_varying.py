"""Numbers by component and model, ramps over depth, and numbers that are searched for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import merging
from merging.errors import MergingError, OptionError, RequirementError
from merging.looking.estimate import effort
from merging.partitioners.block import Block
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.discovery import load_installed
from merging.plugins.options import build
from merging.plugins.registry import optimizers, strategies
from merging.plugins.strategy import MixStrategy, own_partitioner, required
from merging.running.plan import plan
from merging.running.run import Result
from merging.running.session import Session
from merging.storage.pool import ModelPool
from merging.strategies.ties import Ties
from merging.testing import tiny_problem, tiny_task
from merging.testing.fixtures import content_of
from merging.values.recipe import Recipe, Weights
from merging.values.states import RunState
from tests.conftest import Merge
from tests.strategies.test_plain_numbers import states


def made(name: str, **options: Any) -> MixStrategy:
    load_installed()

    def inner(other: str, own: Mapping[str, Any]) -> MixStrategy:
        return build(strategies[other], own)

    plugin: MixStrategy = build(strategies[name], options, inner)
    return plugin


def merged(pool: ModelPool, name: str, **options: Any) -> Result:
    """The merge of a tiny pool, scored on its held-out data."""
    settings = {name: options.pop(name) for name in ("partitioner", "optimizer", "budget", "seed") if name in options}
    settings.setdefault("partitioner", Layer())
    return merging.merge(pool, made(name, **options), task=tiny_task(), baselines=False, tests=False, **settings)


def weights(name: str, models: int = 3, **options: Any) -> dict[str, Tensor]:
    """The merge of models that are drawn, without a task."""
    given, base = states(models)
    partitioner = options.pop("partitioner", Layer())
    result = merging.merge(ModelPool.open(given, base), made(name, **options), partitioner=partitioner, seed=3)
    return dict(result.state_dict())


TENSORWISE: dict[str, tuple[str, int, dict[str, Any], tuple[float, float]]] = {
    "task-arithmetic": ("scale", 3, {}, (0.2, 0.7)),
    "ties": ("density", 3, {"scope": "tensor"}, (0.3, 0.8)),
    "dare": ("drop", 3, {}, (0.3, 0.8)),
    "breadcrumbs": ("gamma", 3, {"density": 0.5}, (0.0, 0.3)),
    "della": ("epsilon", 3, {}, (0.1, 0.4)),
    "sce": ("density", 3, {}, (0.2, 0.9)),
    "slerp": ("t", 2, {}, (0.2, 0.9)),
    "nuslerp": ("t", 2, {"of": "changes"}, (0.2, 0.9)),
    "wise-ft": ("alpha", 3, {}, (0.2, 0.9)),
}


@pytest.mark.parametrize("name", TENSORWISE)
def test_each_component_is_as_with_its_number_alone(name: str) -> None:
    option, models, more, (first, second) = TENSORWISE[name]
    found = weights(name, models, **more, **{option: {"fc1": first, "fc2": second}})
    for part, number in (("fc1", first), ("fc2", second)):
        alone = weights(name, models, **more, **{option: number})
        for tensor in (f"{part}.weight", f"{part}.bias"):
            assert torch.equal(found[tensor], alone[tensor]), tensor
    assert not torch.equal(found["fc1.weight"], weights(name, models, **more, **{option: second})["fc1.weight"])


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "dare"])
def test_each_model_has_its_own(name: str) -> None:
    option, nothing = ("drop", 0.999) if name == "dare" else ("density", 0.0)
    usual = 0.4
    found = weights(name, **{option: [str(usual), f"model_1@={nothing}"]}, scale=0.5)
    if name == "dare":  # no drop loses everything; a larger one changes the merge and nothing of the other models
        assert not torch.equal(found["fc1.weight"], weights(name, drop=usual, scale=0.5)["fc1.weight"])
        return
    without = weights(name, **{option: usual}, scale=0.5, weights=["model_1=0"])
    assert all(torch.equal(found[tensor], without[tensor]) for tensor in without)


def test_names_are_patterns_and_later_entries_win() -> None:
    given = ["0.1", "fc*=0.3", "model_*@fc2=0.6", "model_2@=0.9"]
    density = merging.numbers_of(made("ties", density=given), "density", _problem())
    assert density.table.tolist() == [[0.3, 0.6], [0.3, 0.6], [0.9, 0.9]]
    only = merging.numbers_of(made("ties", density=["fc2=0.6"]), "density", _problem())
    assert only.table.tolist() == [[0.2, 0.6]] * 3, "the others have the default"
    scale = merging.numbers_of(made("dare", scale=["fc2=0.6"]), "scale", _problem())
    assert scale.table[0].tolist() == [1 / 3, 0.6], "or what `none` stands for"


def _problem() -> Any:
    models, base = states(3)
    return Session.open(plan(ModelPool.open(models, base), made("ties"), partitioner=Layer())).problem()


def _deep(blocks: int) -> tuple[ModelPool, dict[str, Tensor]]:
    generator = np.random.default_rng(0)
    names = ["embed.weight", *(f"blocks.{n}.{m}.weight" for n in range(blocks) for m in ("a", "b")), "head.weight"]

    def drawn() -> dict[str, Tensor]:
        return {name: torch.from_numpy(generator.normal(size=(3, 3)).astype(np.float32)) for name in names}

    base = drawn()
    return ModelPool.open({"one": drawn(), "two": drawn()}, base), base


@pytest.mark.parametrize(
    ("ramp", "wanted"),
    [("ramp:0.2..0.8", [0.2, 0.35, 0.5, 0.65, 0.8]), ("ramp:0..1..0", [0.0, 0.5, 1.0, 0.5, 0.0])],
)
def test_a_ramp_follows_the_blocks(ramp: str, wanted: list[float]) -> None:
    pool, base = _deep(3)
    strategy = made("wise-ft", alpha=ramp)
    assert own_partitioner(strategy) == "block"
    result = merging.merge(pool, strategy)  # by default divided into blocks
    assert isinstance(result.merge, Recipe)
    assert len(result.merge.partition) == 5
    found, mean = result.state_dict(), merging.merge(pool, "uniform").state_dict()
    names = ["embed.weight", "blocks.0.b.weight", "blocks.1.a.weight", "blocks.2.b.weight", "head.weight"]
    for name, alpha in zip(names, wanted, strict=True):
        assert torch.allclose(found[name], base[name].lerp(mean[name], alpha), atol=1e-6), name
    layers = merging.merge(pool, strategy, partitioner=Layer()).state_dict()
    assert all(torch.equal(layers[name], found[name]) for name in found), "depth is the blocks', whatever the partition"


def test_a_ramp_of_one_model() -> None:
    pool, _ = _deep(2)
    found = merging.merge(pool, made("breadcrumbs", density=["1", "two@=ramp:0..1"], gamma=0.0, scale=1.0)).state_dict()
    alone = merging.merge(pool, made("breadcrumbs", density=1.0, scale=1.0, weights=["two=0"])).state_dict()
    both = merging.merge(pool, made("breadcrumbs", density=1.0, scale=1.0)).state_dict()
    assert torch.equal(found["embed.weight"], alone["embed.weight"])
    assert torch.equal(found["head.weight"], both["head.weight"])
    assert not torch.equal(found["blocks.0.a.weight"], both["blocks.0.a.weight"])


def test_densities_by_component_keep_their_share_of_each() -> None:
    found = weights("ties", models=1, density={"fc1": 0.5, "fc2": 0.25}, scale=1.0)
    _, base = states(1)
    for part, share in (("fc1", 0.5), ("fc2", 0.25)):
        names = [f"{part}.weight", f"{part}.bias"]
        changed = sum(int((found[name] != base[name]).sum()) for name in names)
        assert changed == round(share * sum(base[name].numel() for name in names)), part
    whole = weights("ties", models=1, density=["0.5"], scale=1.0)
    assert all(torch.equal(tensor, weights("ties", models=1, density=0.5)[name]) for name, tensor in whole.items())


SEARCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "task arithmetic": ("task-arithmetic", {"scale": "search"}),
    "by component": ("task-arithmetic", {"scale": ["*=search:0..1", "fc2=0.4"]}),
    "two at once": ("ties", {"density": "search", "scale": "search:0..2"}),
    "of one model": ("breadcrumbs", {"density": ["0.9", "model_1@=search"]}),
    "drawn": ("dare", {"drop": "search:0..0.9"}),
    "drawn, another option": ("della", {"scale": "search:0.1..2"}),
    "whole": ("lines", {"alpha": "search", "beta": "search:-1..1"}),
    "on top": ("wise-ft", {"alpha": "search", "inner": {"name": "dare", "drop": "0.7"}}),
    "on top of a search": ("wise-ft", {"alpha": "search", "inner": {"name": "manifoldmix", "budget": 8}}),
}


@pytest.mark.parametrize("case", SEARCHED)
def test_what_was_found_gives_the_same_bits_as_numbers(pool: ModelPool, case: str) -> None:
    name, options = SEARCHED[case]
    result = merged(pool, name, **options, budget=8, seed=5)
    decision = next(each for each in reversed(result.report.decisions) if "searched" in each)
    assert decision["strategy"] == name
    assert set(decision["searched"]) == {key for key, value in options.items() if "search" in str(value)}
    assert "search" not in str(decision["searched"])
    assert decision["score"] >= decision["start"]
    again = merged(pool, name, **{**options, **decision["searched"]}, budget=8, seed=5)
    assert content_of(again) == content_of(result)
    assert again.report.rows[-1].held_out == result.report.rows[-1].held_out == decision["score"]
    if isinstance(result.merge, Weights):
        assert result.merge.options == made(name, **{**options, **decision["searched"]}).options()


def test_a_search_inside_of_another(pool: ModelPool) -> None:
    result = merged(pool, "wise-ft", alpha="search", inner={"name": "ties", "density": "search"}, budget=6)
    inner, outer = result.report.decisions
    assert (inner["strategy"], outer["strategy"]) == ("ties", "wise-ft"), "the inner one once, before"
    plain = merged(pool, "wise-ft", **outer["searched"], inner={"name": "ties", **inner["searched"]})
    assert content_of(plain) == content_of(result)


def test_it_finds_the_neighbourhood_of_a_grid(pool: ModelPool) -> None:
    """Of task arithmetic: no worse than the default, and than all but the luckiest points of a grid."""
    problem = tiny_problem(pool, partitioner=Whole())
    grid = [problem.evaluate(made("task-arithmetic", scale=x).mix(problem)).score for x in np.linspace(0.0, 1.0, 41)]
    result = merged(pool, "task-arithmetic", scale="search:0..1", partitioner=Whole())
    decision = result.report.decisions[-1]
    assert decision["score"] >= max(decision["start"], sorted(grid)[-4])
    assert decision["start"] == grid[round(40 / len(pool))], "it begins at 1/n"
    assert decision["points"] == 30
    assert result.report.evaluations <= 31


def test_a_point_is_merged_once(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = list[Any]()
    plain = Ties.mix
    monkeypatch.setattr(Ties, "mix", lambda self, problem: mixed.append(self.density) or plain(self, problem))
    result = merged(pool, "ties", density="search:0.1..0.9")  # COBYLA comes back to its best point
    points = result.report.decisions[-1]["points"]
    assert points == 30
    assert len(mixed) == len({*mixed}) + 1 < points, "each once, and the best one for what is saved"


def test_one_number_or_one_for_each(pool: ModelPool) -> None:
    def points(scale: Any, **settings: Any) -> tuple[int, Any]:
        decision = merged(pool, "task-arithmetic", scale=scale, optimizer=optimizers["random"](), **settings)
        facts = decision.report.decisions[-1]
        return facts["points"], facts["searched"]["scale"]

    load_installed()
    asked, found = points("search")
    assert (asked, type(found)) == (30, float), "one number, whatever the partition"
    asked, found = points("*=search")
    assert asked == 60, "fc1 and fc2; the others reach no logit"
    assert [entry.partition("=")[0] for entry in found] == ["fc1", "fc2", "unused", "steps"] or len(found) == 4
    asked, found = points(["search:0..1", "fc2=0.3"])
    assert asked == 30
    assert found[1] == "fc2=0.3"
    assert points("search", budget=4)[0] == 4


def test_it_starts_at_what_was_said_before(pool: ModelPool) -> None:
    given = merged(pool, "task-arithmetic", scale=-0.6).report.rows[-1].held_out
    for scale in (["-0.6", "*=search"], ["-0.6", "fc1=search:-1..1"]):
        decision = merged(pool, "task-arithmetic", scale=scale, budget=1).report.decisions[-1]
        assert decision["start"] == given
    assert given != merged(pool, "task-arithmetic").report.rows[-1].held_out


@pytest.mark.parametrize("name", ["coordinate", "nested", "random", "scipy-cobyla", "scipy-cobyqa", "nevergrad-cobyla"])
def test_any_optimizer_does(pool: ModelPool, name: str) -> None:
    load_installed()
    for scale in ("search:0..1", "fc*=search:0..1"):
        result = merged(pool, "task-arithmetic", scale=scale, optimizer=optimizers[name](), budget=10)
        decision = result.report.decisions[-1]
        assert 1 <= decision["points"] <= 10
        assert decision["score"] >= decision["start"]


def test_a_strategy_of_ones_own(pool: ModelPool) -> None:
    """Whoever declares a number that varies has all of it: places, ramps, searches."""

    @strategies.register("towards-the-mean")
    @dataclass(frozen=True)
    class Towards(MixStrategy):
        """The way from the first model to the average of all."""

        share: merging.Varying = merging.varying_option(0.5, "how far", "components", low=0.0, high=1.0)

        def mix(self, problem: merging.Problem) -> Recipe:
            shares = merging.numbers_of(self, "share", problem).row
            return problem.mean(range(len(problem.pool))).lerp(problem.single(0), shares)

    assert merged(pool, "towards-the-mean").merge.coefficients[0, 0] == 0.6  # type: ignore[union-attr]
    ramp = merged(pool, "towards-the-mean", share="ramp:0..1").merge  # of the blocks `unused`, fc1 and fc2
    assert ramp.coefficients[0, :2].tolist() == pytest.approx([0.6, 0.2])  # type: ignore[union-attr]
    found = merged(pool, "towards-the-mean", share="search").report.decisions[-1]
    assert found["score"] >= found["start"]


@pytest.mark.parametrize(("scale", "points"), [("search", 30), (["fc*=search"], 60)])
def test_a_rehearsal_counts_all_points(pool: ModelPool, scale: Any, points: int) -> None:
    """Made-up scores lead COBYLA to few points, again and again; real ones to nearly as many as it may ask for."""
    load_installed()
    given: dict[str, Any] = {"task": tiny_task(), "partitioner": Layer(), "baselines": False}
    made_up = plan(pool, made("task-arithmetic", scale=scale), optimizer=optimizers["nevergrad-cobyla"](), **given)
    assert effort(made_up).evaluations == points + 1, "the start is beside the budget"


def test_it_needs_what_a_search_needs(pool: ModelPool) -> None:
    assert required(made("ties", density="search")) == {"base", "model", "objective"}
    assert required(made("ties", density=["0.1", "fc1=0.3"])) == {"base"}
    assert required(made("shrink", inner={"name": "ties", "density": "search"})) == {"base", "model", "objective"}
    with pytest.raises(RequirementError, match="'ties' needs model to search for density, scale; give `task`"):
        plan(pool, made("ties", density="search", scale="search"))


def test_resumed_in_the_middle(pool_folder: Path, merge: Merge, tiny: list[str]) -> None:
    given = [*tiny, "--base", str(pool_folder / "base.safetensors"), "--strategy", "dare", "--budget", "12"]
    assert merge(*given, "-o", "strategy.drop=search", "--output", "whole").code == 0
    journal = Path("whole/events.jsonl").read_text().splitlines(keepends=True)
    scored = [number for number, line in enumerate(journal) if '"event":"evaluation"' in line]
    Path("torn").mkdir()
    Path("torn/events.jsonl").write_text("".join(journal[: scored[-3]]))
    ran = merge("run", "--resume", "torn", "--trust-code")
    assert ran.code == 0, ran.err
    assert Path("torn/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    keys = [json.loads(line).get("key") for line in Path("torn/events.jsonl").read_text().splitlines()]
    assert len([key for key in keys if key]) == len({key for key in keys if key}), "nothing is scored twice"


def test_interrupted(pool: ModelPool) -> None:
    after, asked = 6, 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    plugin, scored = made("task-arithmetic", scale="search"), {"task": tiny_task(), "baselines": False, "tests": False}
    result = merging.merge(pool, plugin, partitioner=Layer(), should_stop=should_stop, **scored)  # type: ignore[arg-type]
    assert result.report.state is RunState.INTERRUPTED
    limited = merging.merge(pool, plugin, partitioner=Layer(), max_evaluations=after, **scored)  # type: ignore[arg-type]
    assert limited.report.state is RunState.LIMIT
    assert limited.report.evaluations == after
    assert limited.report.rows[-1].held_out >= 0.85, "the best so far"


def test_from_the_command_line_to_the_card(pool_folder: Path, merge: Merge, tiny: list[str]) -> None:
    given = [*tiny, "--base", str(pool_folder / "base.safetensors"), "--strategy", "task-arithmetic"]
    ran = merge(*given, "-o", "strategy.scale=*=search:0..1", "-o", "strategy.scale.fc2=0.3", "--output", "mixed")
    assert ran.code == 2
    assert "give" in ran.err
    ran = merge(*given, "-o", "strategy.scale=search:0..1", "--budget", "6", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    found = report["decisions"][-1]["searched"]["scale"]
    (note,) = (each for each in report["notes"] if "search" in each)
    assert note.startswith(f"task-arithmetic: scale = {found}, by a search of 6 points: ")
    assert f"scale = {found}" in Path("out/README.md").read_text()
    assert merge("apply", "out/recipe.json", "--output", "again.safetensors").code == 0
    again = merging.ModelPool.open(["again.safetensors", "out/model.safetensors"])
    assert again.ingredients[0].hash == again.ingredients[1].hash
    rehearsed = merge(*given, "-o", "strategy.scale=search", "--dry-run")
    assert rehearsed.code == 0, rehearsed.err
    assert "evaluations" in rehearsed.out


def test_from_a_file(pool_folder: Path, merge: Merge) -> None:
    for line in ('"strategy.scale" = { fc1 = 0.2, fc2 = 0.7 }', "strategy.scale = { fc1 = 0.2, fc2 = 0.7 }"):
        Path("merge.toml").write_text(
            f'[pool]\nmodels = ["{pool_folder}/model_*.safetensors"]\nbase = "{pool_folder}/base.safetensors"\n'
            f'[run]\nstrategy = "task-arithmetic"\npartitioner = "layer"\n[run.options]\n{line}\n'
        )
        ran = merge("run", "--output", "out", "--overwrite")
        assert ran.code == 0, ran.err
        assert json.loads(Path("out/report.json").read_text())["options"]["scale"] == ["fc1=0.2", "fc2=0.7"]


BAD = [
    ("density", "search:0.8..0.2", "must have two bounds, the smaller first"),
    ("density", "search:0.2", "must have two bounds, the smaller first"),
    ("density", "search:0..9", "is 9.0, but must be between 0 and 1"),
    ("density", "fc1=search:-1..1", "is -1.0, but must be between 0 and 1"),
    ("density", "ramp:0.2", "is no ramp: write two or more numbers"),
    ("density", "ramp:low..high", "is no ramp: write two or more numbers"),
    ("density", "ramp:0.2..1.8", "is 1.8, but must be between 0 and 1"),
    ("density", "nan", "must be a valid number"),
    ("density", "fc1=nan", "must be a valid number"),
    ("density", "serch", "ramp:A..B or search"),
    ("density", ["fc1=0.2", "fc1=0.3"], "'fc1' stands twice"),
    ("density", [], "is empty"),
    ("density", "=0.3", "names nothing before '='"),
    ("scale", "model_1@fc1=0.3", "names a model, but this option varies by component alone"),
    ("scale", "model_1@=0.3", "names a model, but this option varies by component alone"),
    ("scope", "search", "unknown value for option 'scope'"),
]


@pytest.mark.parametrize(("option", "value", "said"), BAD)
def test_what_cannot_be(option: str, value: Any, said: str) -> None:
    with pytest.raises(MergingError) as error:
        made("ties", **{option: value})
    assert said in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (("ties", {"density": "fc9=0.3"}), "unknown component 'fc9'; did you mean 'fc"),
        (("ties", {"density": "model_0=0.3"}), "'model_0': it is a model; write model_0@=NUMBER"),
        (("ties", {"density": "model_9@fc1=search"}), "unknown model 'model_9'; did you mean 'model_"),
        (("wise-ft", {"inner": {"name": "ties", "scale": "fc9=1"}}), "unknown component 'fc9'"),
    ],
)
def test_names_that_are_not_there_are_found_before_any_work(
    pool: ModelPool, strategy: tuple[str, dict[str, Any]], said: str
) -> None:
    name, options = strategy
    with pytest.raises(MergingError, match=said):
        plan(pool, made(name, **options), task=tiny_task(), partitioner=Layer())


def test_more_that_cannot_be(pool: ModelPool) -> None:
    with pytest.raises(OptionError, match="the partition has one component, 'model'; choose the partitioner block"):
        plan(pool, made("ties", density="ramp:0..1"), partitioner=Whole())
    with pytest.raises(OptionError, match=r"must be one number .*, search or search:LO"):
        made("lines", alpha="ramp:0..1")
    with pytest.raises(OptionError, match=r"give the search bounds, such as density=search:0.2..0.8"):
        made("della", density="search")
    with pytest.raises(OptionError, match=r"density . epsilon must be above 0"):
        merging.merge(pool, made("della", density={"fc1": 0.1}), partitioner=Block())
    made("della", density={"fc1": 0.9}, epsilon={"fc1": 0.05})  # which meet in one component


def test_options_survive_json() -> None:
    given = {"density": ["0.5", "fc1=0.7", "model_1@=ramp:0.2..0.8"], "scale": "search:0.5..1.5"}
    plugin = made("ties", **given)
    options = json.loads(json.dumps(plugin.options()))
    assert options["density"] == given["density"]
    assert build(strategies["ties"], options) == plugin
    assert made("ties", density=["0.5"]).options() == made("ties", density=0.5).options()
    assert made("ties", density={"fc1": np.float64(0.5)}) == made("ties", density=["fc1=0.5"])


def test_described(merge: Merge) -> None:
    described = json.loads(merge("describe", "dare", "--json").out)
    varies = {option["name"]: option.get("varies") for option in described["options"]}
    assert (varies["drop"], varies["scale"], varies["method"]) == ("models", "components", None)
    assert next(option["type"] for option in described["options"] if option["name"] == "drop") == "float"
    assert "search:0.2..0.8" in merge("describe", "dare").out

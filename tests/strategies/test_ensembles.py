"""Ensembles: outputs averaged, members selected, written, scored again; and strategies on top of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import merging
from merging.errors import MergingError, OptionError, RecipeError, RequirementError, StrategyError, UnknownNameError
from merging.objectives.nll import NegativeLogLikelihood
from merging.plugins.options import build
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.greedy import Greedy
from merging.strategies.greedy_ensemble import GreedyEnsemble
from merging.strategies.manifoldmix import ManifoldMix
from merging.strategies.slerp import Slerp
from merging.strategies.swa import Swa
from merging.strategies.task_arithmetic import TaskArithmetic
from merging.strategies.wise_ft import WiseFt
from merging.testing import tiny_pool, tiny_problem, tiny_task
from merging.testing.fixtures import TinyNet
from merging.values.recipe import Ensemble, Recipe, Weights
from tests.conftest import Merge

pytestmark = pytest.mark.gpu


def outputs(pool: ModelPool, inputs: Tensor) -> list[Tensor]:
    """Logits of every model in float64."""
    found = []
    for checkpoint in pool.checkpoints:
        module = TinyNet().double()
        module.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in checkpoint.load().items()})
        with torch.no_grad():
            found.append(module(inputs.double()))
    return found


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("split", ["held-out", "shifted"])
def test_outputs_are_averaged(pool: ModelPool, average: str, split: str) -> None:
    task, problem = tiny_task(), tiny_problem(pool)
    merged = OutputEnsemble(average=average).mix(problem)
    data = task.split(split)
    given = outputs(pool, data.inputs)
    parts = given if average == "logits" else [logits.softmax(1) for logits in given]
    wanted = torch.stack(parts).mean(0).argmax(1) == data.labels
    outcome = problem.evaluator.evaluate(merged, split)
    assert np.array_equal(outcome.hits, wanted.numpy())
    assert outcome.score == pytest.approx(float(wanted.double().mean()))


def test_probabilities_have_a_likelihood(pool: ModelPool) -> None:
    result = merging.merge(
        pool, OutputEnsemble(average="probabilities"), task=tiny_task(), objective=NegativeLogLikelihood()
    )
    data = tiny_task().held_out
    mean = torch.stack([logits.softmax(1) for logits in outputs(pool, data.inputs)]).mean(0)
    wanted = float(mean.log().gather(1, data.labels[:, None]).mean())
    assert result.report.rows[-1].held_out == pytest.approx(wanted, rel=1e-4)


def test_weights_count(pool: ModelPool) -> None:
    problem, data = tiny_problem(pool), tiny_task().held_out
    merged = Ensemble((problem.single(0), problem.single(3)), (3.0, 1.0))
    given = outputs(pool, data.inputs)
    wanted = (3 * given[0] + given[3]).argmax(1) == data.labels
    assert np.array_equal(problem.evaluate(merged).hits, wanted.numpy())
    for weights in ((1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(RecipeError):
            Ensemble(merged.members, weights)


def selected(given: list[Tensor], labels: Tensor, *, replacement: bool, one_pass: bool) -> list[int]:
    """Forward selection, as plainly as it can be."""

    def score(chosen: list[int]) -> float:
        return float((sum(given[i] for i in chosen).argmax(1) == labels).double().mean())

    ranking = sorted(range(len(given)), key=lambda i: -score([i]))
    chosen = ranking[:1]
    if one_pass:
        for index in ranking[1:]:
            if score([*chosen, index]) > score(chosen):
                chosen.append(index)
        return chosen
    while True:
        free = ranking if replacement else [i for i in ranking if i not in chosen]
        if not free:
            return chosen
        best = max(free, key=lambda i: score([*chosen, i]))
        if score([*chosen, best]) <= score(chosen):
            return chosen
        chosen.append(best)


def test_replacement_goes_with_the_best_order() -> None:
    with pytest.raises(OptionError, match="goes with order=best"):
        GreedyEnsemble(order="sorted", replacement=True)


@pytest.mark.parametrize(("order", "replacement"), [("best", False), ("best", True), ("sorted", False)])
def test_greedy_selection(pool: ModelPool, order: str, replacement: bool) -> None:
    problem, data = tiny_problem(pool), tiny_task().held_out
    merged = GreedyEnsemble(order=order, replacement=replacement).mix(problem)
    wanted = selected(outputs(pool, data.inputs), data.labels, replacement=replacement, one_pass=order == "sorted")
    expected = {name: wanted.count(index) for index, name in enumerate(pool.names) if index in wanted}
    assert dict(zip(merged.names, merged.weights, strict=True)) == expected
    assert problem.evaluator.ledger.total.forward_equivalents == pytest.approx(5), "each model runs once"


def test_a_run_writes_the_members(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "ensemble", "--output", "out")
    assert ran.code == 0, ran.err
    assert "passes a sample" in ran.out
    assert "Inference costs" in ran.out
    content = json.loads(Path("out/ensemble.json").read_text())
    report = json.loads(Path("out/report.json").read_text())
    assert report["inference_cost"] == len(content["members"]) == len(report["pool"])
    assert not Path("out/model.safetensors").exists()
    assert not Path("out/recipe.json").exists()
    assert "forward passes" in Path("out/README.md").read_text()
    first = load_file(Path("out") / content["members"][0]["folder"] / "model.safetensors")
    assert set(first) == set(TinyNet().state_dict())
    scored = merge("evaluate", "out", "--trust-code", "--json")
    assert scored.code == 0, scored.err
    row = report["rows"][-1]
    assert json.loads(scored.out)["models"][0]["sets"]["held-out"]["score"] == row["held_out"]
    ran = merge("apply", "out", "--output", "model.safetensors")
    assert ran.code == 2
    # a merge in its place leaves no members behind
    assert merge(*tiny, "--strategy", "uniform", "--output", "out", "--overwrite").code == 0
    assert not Path("out/members").exists()
    assert not Path("out/ensemble.json").exists()
    # and another ensemble replaces the first
    for _ in range(2):
        assert merge(*tiny, "--strategy", "greedy-ensemble", "--output", "out", "--overwrite").code == 0
    Path("out/ensemble.json").write_text("{}")
    ran = merge("evaluate", "out", "--trust-code")
    assert ran.code == 2
    assert "ensemble.json is damaged" in ran.err


def test_an_ensemble_resumes_with_the_same_result(merge: Merge, tiny: list[str]) -> None:
    for strategy in ("ensemble", "greedy-ensemble"):
        words = (*tiny, "--strategy", strategy, "--output")
        assert merge(*words, f"{strategy}-whole").code == 0
        # After the baselines (five models, the uniform soup, four averages), among or after the members' own outputs.
        assert merge(*words, f"{strategy}-cut", "--max-evaluations", "10").code == 0
        ran = merge("run", "--resume", f"{strategy}-cut", "--max-evaluations", "100", "--trust-code")
        assert ran.code == 0, ran.err
        cut, whole = (Path(f"{strategy}-{kind}/ensemble.json").read_text() for kind in ("cut", "whole"))
        assert cut == whole


def test_what_a_run_did_not_write_stays(merge: Merge, tiny: list[str]) -> None:
    """An earlier ensemble's members are replaced; a user's own files among them are not, and no input ever is."""
    assert merge(*tiny, "--strategy", "ensemble", "--output", "out").code == 0
    Path("out/members/notes.txt").write_text("mine")
    member = next(Path("out/members").glob("*/model.safetensors"))
    ran = merge("run", "--strategy", "uniform", "--models", member, "--output", "out", "--overwrite")
    assert ran.code == 2
    assert "would be overwritten" in ran.err
    assert member.exists()
    assert merge(*tiny, "--strategy", "greedy-ensemble", "--output", "out", "--overwrite").code == 0
    names = {entry["folder"].split("/")[1] for entry in json.loads(Path("out/ensemble.json").read_text())["members"]}
    assert {path.name for path in Path("out/members").iterdir()} == names | {"notes.txt"}
    assert merge(*tiny, "--strategy", "uniform", "--output", "out", "--overwrite").code == 0
    assert [path.name for path in Path("out/members").iterdir()] == ["notes.txt"]
    for told in ("members/..", "members/../..", "../out", "/"):  # what is removed is never what a file says
        Path("out/ensemble.json").write_text(json.dumps({"members": [{"folder": told}]}))
        assert merge(*tiny, "--strategy", "uniform", "--output", "out", "--overwrite").code == 0
        assert Path("out/model.safetensors").exists()
        assert Path("out/members/notes.txt").read_text() == "mine"
    Path("out/members/1").mkdir()
    Path("out/members/1/mine.txt").write_text("mine")
    ran = merge(*tiny, "--strategy", "ensemble", "--output", "out", "--overwrite")
    assert ran.code == 2
    assert "was not written by a run" in ran.err
    assert Path("out/members/1/mine.txt").read_text() == "mine"
    assert not Path("out/ensemble.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--format", "pt"), ("--max-shard-size", "300B")])
def test_the_card_of_an_ensemble_loads_a_member(merge: Merge, tiny: list[str], flags: tuple[str, ...]) -> None:
    """One model: an ensemble of one is still written as one."""
    one = [word.replace("model_*", "model_0") for word in tiny]
    ran = merge(*one, "--strategy", "greedy-ensemble", "--no-baselines", *flags, "--output", "out")
    assert ran.code == 0, ran.err
    assert "The ensemble: 1 model in out/members" in ran.out
    card = Path("out/README.md").read_text()
    program = (
        card.partition("```python\n")[2].partition("```")[0].replace("model.load_state_dict(state, strict=True)", "")
    )
    check = "assert set(state) == {'fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias', 'unused', 'steps'}, set(state)"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{check}"], cwd="out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_ensemble_is_no_state_dict(pool: ModelPool) -> None:
    result = merging.merge(pool, OutputEnsemble(), task=tiny_task(), baselines=False)
    with pytest.raises(StrategyError, match="5 members is no single model"):
        result.state_dict()
    assert result.report.inference_cost == result.report.rows[-1].inference_cost == 5
    with pytest.raises(RequirementError, match="needs model"):
        merging.merge(pool, OutputEnsemble())


# Strategies on top of others


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_wise_ft_is_the_line_from_the_base(pool: ModelPool, alpha: float) -> None:
    assert pool.base is not None
    base, states = pool.base.load(), [checkpoint.load() for checkpoint in pool.checkpoints]
    merged = merging.merge(pool, WiseFt(alpha=alpha)).state_dict()
    for name, tensor in merged.items():
        if tensor.is_floating_point():
            mean = torch.stack([state[name].double() for state in states]).mean(0)
            assert torch.allclose(tensor.double(), (1 - alpha) * base[name].double() + alpha * mean, atol=1e-7)
    if alpha == 0.0:
        assert torch.equal(merged["fc1.weight"], base["fc1.weight"])


def test_wise_ft_on_greedy_and_on_weights(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    merged, inner = WiseFt(alpha=0.5, inner=Greedy()).mix(problem), Greedy().mix(tiny_problem(pool))
    assert isinstance(merged, Recipe)
    assert np.allclose(merged.coefficients[:-1], inner.coefficients / 2)
    assert merged.ingredients[-1] == pool.base_ingredient
    weights = WiseFt(alpha=0.25, inner=Slerp()).mix(tiny_problem(pool))
    assert isinstance(weights, Weights)
    assert pool.base is not None
    whole, base = Slerp().mix(tiny_problem(pool)).tensors["fc1.weight"], pool.base.read("fc1.weight")
    assert torch.allclose(weights.tensors["fc1.weight"], 0.75 * base + 0.25 * whole, atol=1e-6)
    with pytest.raises(RequirementError, match="gives an ensemble"):
        WiseFt(inner=OutputEnsemble()).mix(tiny_problem(pool))
    with pytest.raises(RequirementError, match="its part 'ensemble' gives an ensemble"):  # before any work
        merging.merge(pool, WiseFt(inner=OutputEnsemble()), task=tiny_task())


def test_a_sweep_reports_every_point_and_takes_the_best(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    merged = WiseFt(alpha=None, steps=4).mix(problem)
    points = [(fact["alpha"], fact["score"]) for fact in problem.decisions]
    assert [alpha for alpha, _ in points] == [0, 0.25, 0.5, 0.75, 1]
    best = max(score for _, score in points)
    assert problem.evaluate(merged).score == best
    first = next(alpha for alpha, score in points if score == best)
    share = 1 - merged.coefficients[merged.ingredients.index(pool.base_ingredient)] if first < 1 else np.ones(1)
    assert np.allclose(share, first)


def test_what_a_part_needs_is_needed(pool: ModelPool, tmp_path: Path) -> None:
    assert WiseFt().requires() == {"base"}
    assert WiseFt(alpha=None).requires() == {"base", "model", "objective"}
    assert WiseFt(inner=ManifoldMix(profile="reference")).requires() == {"base", "model", "objective"}
    assert WiseFt(inner=ManifoldMix(profile="reference")).default_optimizer() == "nevergrad-reference"
    assert WiseFt(inner=Greedy()).fewest() == 2
    with pytest.raises(RequirementError, match="needs model"):
        merging.merge(pool, WiseFt(inner=Greedy()))
    with pytest.raises(RequirementError, match="needs at least 2 models"):
        merging.merge(tiny_pool(tmp_path, models=1), WiseFt(inner=Greedy()), task=tiny_task())


def test_inner_strategies_from_names() -> None:
    kinds = {"greedy": Greedy, "wise-ft": WiseFt}

    def nested(name: str, options: dict[str, object]) -> merging.MixStrategy:
        return build(kinds[name], options, nested)

    made = build(WiseFt, {"alpha": "0.25", "inner": "greedy", "inner.order": "random"}, nested)
    assert made == WiseFt(alpha=0.25, inner=Greedy(order="random"))
    assert build(WiseFt, made.options(), nested) == made
    deep = build(WiseFt, {"inner": "wise-ft", "inner.inner": "greedy", "inner.inner.orders": 5}, nested)
    assert deep.inner == WiseFt(inner=Greedy(orders=5))
    assert build(WiseFt, {"inner": "none"}, nested) == WiseFt()
    assert build(WiseFt, {"inner.name": "greedy", "inner.order": "random"}, nested) == WiseFt(
        inner=Greedy(order="random")
    )
    for inner in ({}, {"inner": "none"}):
        with pytest.raises(OptionError, match=r"inner\.order.*belongs to no plug-in"):
            build(WiseFt, {**inner, "inner.order": "random"}, nested)
    with pytest.raises(UnknownNameError, match="did you mean 'order'"):
        build(WiseFt, {"inner": "greedy", "inner.oder": "random"}, nested)
    with pytest.raises(UnknownNameError, match=r"steps\.x"):
        build(WiseFt, {"steps.x": 1}, nested)
    assert WiseFt(inner="greedy") == WiseFt(inner=Greedy()), "a name is taken where an object is"
    with pytest.raises(UnknownNameError, match="did you mean 'greedy'"):
        WiseFt(inner="gredy")
    with pytest.raises(OptionError, match="inner"):
        WiseFt(inner=3)  # type: ignore[arg-type]


def test_the_command_line_nests(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    base = ("--base", str(pool_folder / "base.safetensors"))
    inner = ("-o", "strategy.inner=greedy", "-o", "strategy.inner.accept_ties=true", "-o", "strategy.alpha=0.75")
    ran = merge(*tiny, *base, "--strategy", "wise-ft", *inner, "--output", "out")
    assert ran.code == 0, ran.err
    options = json.loads(Path("out/report.json").read_text())["options"]
    assert options["inner"] == {"name": "greedy", "order": "sorted", "orders": 3, "accept_ties": True}
    ran = merge(*tiny, *base, "--strategy", "wise-ft", "-o", "strategy.inner=gredy", "--output", "no")
    assert ran.code == 2
    assert "did you mean 'greedy'" in ran.err
    ran = merge("run", "--models", str(pool_folder), "--strategy", "wise-ft", "-o", "strategy.inner=greedy")
    assert ran.code == 2
    assert "--base" in ran.err or "needs" in ran.err or "evaluates models" in ran.err


# One run's checkpoints


def test_swa_is_the_running_mean(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    assert Swa().mix(problem).names == pool.names
    assert Swa(start=1, every=2).mix(problem).names == (pool.names[1], pool.names[3])
    assert Swa(start=1, last=2).mix(problem).names == pool.names[3:]
    merged = merging.merge(pool, Swa(start=2)).state_dict()["fc1.weight"].double()
    running = torch.zeros_like(merged)
    for count, checkpoint in enumerate(pool.checkpoints[2:]):
        running += (checkpoint.read("fc1.weight").double() - running) / (count + 1)  # Izmailov et al. 2018, Algorithm 1
    assert torch.allclose(merged, running, atol=1e-7)
    with pytest.raises(MergingError, match="needs at least 6 models"):
        merging.merge(pool, Swa(start=5))


def test_task_arithmetic_and_wise_ft_agree(pool: ModelPool) -> None:
    """α on the uniform soup is the sum of task vectors scaled by α/n."""
    one = merging.merge(pool, WiseFt(alpha=0.6)).state_dict()
    two = merging.merge(pool, TaskArithmetic(scale=0.6 / 5)).state_dict()
    assert all(torch.allclose(one[name].double(), two[name].double(), atol=1e-6) for name in one)

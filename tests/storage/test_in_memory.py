"""State dicts and modules in memory: the same model as a file of the same tensors, and nobody changes it afterwards."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

import merging
from merging import Checkpoint, ModelPool
from merging.errors import CheckpointError, MergingError, PoolError, RecipeError
from merging.forward.device import on_device
from merging.plugins.strategy import MixStrategy
from merging.storage.in_memory import MEMORY
from merging.testing import tiny_task


class Tied(nn.Module):
    """Two names, one tensor; and a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.tensor(7))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def bits(state: Any) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in state.items()}


KINDS: list[Callable[[], nn.Module]] = [
    net,
    Tied,
    lambda: net().bfloat16(),
    lambda: net().half(),
    lambda: net().double(),
]


@pytest.mark.parametrize("make", KINDS)
def test_the_content_is_that_of_a_file(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    module = make()
    torch.save(module.state_dict(), tmp_path / "a.pt")
    save_file({name: tensor.clone() for name, tensor in module.state_dict().items()}, tmp_path / "a.safetensors")
    held = [Checkpoint.of(module), Checkpoint.of(module.state_dict()), Checkpoint.of(dict(module.state_dict()))]
    lying = [Checkpoint(tmp_path / "a.pt"), Checkpoint(tmp_path / "a.safetensors")]
    assert len({checkpoint.hash for checkpoint in (*held, *lying)}) == 1
    assert held[0].ties == lying[0].ties
    assert held[0].tensors == lying[0].tensors
    assert all(checkpoint.in_memory and not checkpoint.files and not checkpoint.extras for checkpoint in held)


def test_training_that_goes_on_changes_nothing() -> None:
    module = net()
    pool = ModelPool([module, net(1)])
    before, merged = pool.checkpoints[0].hash, merging.merge(pool, "uniform").state_dict()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1)
    assert Checkpoint.of(pool.checkpoints[0].load()).hash == before
    assert bits(merging.merge(pool, "uniform").state_dict()) == bits(merged)
    assert Checkpoint.of(module).hash != before


def compiled(module: nn.Module) -> nn.Module:
    """A module within what torch.compile makes."""
    made: Any = torch.compile(module)
    return nn.DataParallel(made)


@pytest.mark.parametrize("wrap", [nn.DataParallel, pytest.param(compiled, marks=pytest.mark.slow)])
def test_what_wrappers_add_to_names_is_removed(wrap: Callable[[nn.Module], nn.Module]) -> None:
    assert Checkpoint.of(wrap(net())).hash == Checkpoint.of(net()).hash


def test_parametrised_weights_are_refused_as_those_of_files_are(tmp_path: Path) -> None:
    modules = [nn.Sequential(parametrizations.weight_norm(net(seed)[0])) for seed in range(2)]  # type: ignore[index]
    files = []
    for number, module in enumerate(modules):
        torch.save(module.state_dict(), tmp_path / f"{number}.pt")
        files.append(tmp_path / f"{number}.pt")
    for models in (modules, files):
        with pytest.raises(PoolError, match="make one weight"):
            merging.merge(models, "uniform")


def test_a_list_and_a_mapping_name_them(tmp_path: Path) -> None:
    torch.save(net(2).state_dict(), tmp_path / "a.pt")
    many = ModelPool([net(seed) for seed in range(12)])
    assert many.names == tuple(f"model_{number}" for number in range(12))
    assert ModelPool({"first": net(), "second": net(1).state_dict(), "third": tmp_path / "a.pt"}).names == (
        "first",
        "second",
        "third",
    )
    mixed = ModelPool([net(), str(tmp_path / "*.pt"), Checkpoint.of(net(3), "mine")], base=net(4))
    assert set(mixed.names) == {"model_0", "a", "mine"}
    assert mixed.base is not None
    assert mixed.base_ingredient.file == ""
    torch.save(net(5).state_dict(), tmp_path / "model_0.pt")
    assert ModelPool([net(), tmp_path / "model_0.pt"]).names == ("model_0", "model_0 (memory)")


def test_a_string_is_one_pattern(tmp_path: Path) -> None:
    for number in range(3):
        torch.save(net(number).state_dict(), tmp_path / f"m{number}.pt")
    wanted = ("m0", "m1", "m2")
    for given in (str(tmp_path / "*.pt"), tmp_path / "m?.pt", tmp_path, str(tmp_path)):
        assert ModelPool.open(given).names == ModelPool(given).names == wanted
    assert ModelPool.open({"path": str(tmp_path / "m1.pt")}).names == ("m1",)
    with pytest.raises(PoolError, match=r"no models match 'nothing/\*\.pt'"):
        ModelPool.open("nothing/*.pt")
    pool = ModelPool.open(tmp_path)
    assert ModelPool.open(pool) is pool
    based = ModelPool.open(pool, base=tmp_path / "m0.pt")
    assert based.base is not None
    assert based.names == wanted


def test_the_working_folder_says_nothing_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "bert", "id2label": {"0": "a", "1": "b"}, "transformers_version": "4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "model_0").mkdir()
    monkeypatch.chdir(tmp_path)
    pool = ModelPool([net(), net(1)])
    assert pool.beside == ()
    result = merging.merge(pool, "uniform", output=tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    assert [row.file for row in result.merge.ingredients] == ["", ""]


def test_the_result_goes_back_into_the_module() -> None:
    for models in ([net(), net(1)], [nn.DataParallel(net()), nn.DataParallel(net(1))]):
        net().load_state_dict(merging.merge(models, "uniform").state_dict(), strict=True)
    modules = [Tied(), Tied()]
    modules[0].load_state_dict(merging.merge(modules, merging.Uniform).state_dict(), strict=True)
    assert modules[0].head.weight is modules[0].embedding.weight


def test_a_recipe_says_that_they_were_in_memory(tmp_path: Path) -> None:
    models = [net(seed) for seed in range(3)]
    result = merging.merge(models, "uniform", output=tmp_path / "out")
    with pytest.raises(RecipeError, match=r"3 ingredients \('model_0', …\) were in memory .*; pass `models`"):
        merging.apply(tmp_path / "out")
    files = []
    for number, model in enumerate(models):
        files.append(tmp_path / f"any{number}.pt")
        torch.save(model.state_dict(), files[-1])
    wanted = bits(result.state_dict())
    named = {f"m{number}": model for number, model in enumerate(models)}
    for given in (files, models, named, str(tmp_path / "any*.pt")):
        assert bits(merging.apply(tmp_path / "out", models=given).state_dict()) == wanted
    assert bits(merging.apply(result).state_dict()) == wanted
    written = merging.apply(result, output=tmp_path / "again.safetensors")
    assert written.hash == result.report.content_hash
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    with torch.no_grad():
        models[0][0].weight.add_(1)  # type: ignore[index]
    with pytest.raises(RecipeError, match="'model_0'"):
        merging.apply(tmp_path / "out", models=models)


def test_a_run_goes_on_with_the_same_content(tmp_path: Path, pool_states: list[dict[str, torch.Tensor]]) -> None:
    asked = list[int]()

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    asks: dict[str, Any] = {"strategy": merging.ManifoldMix(budget=5), "optimizer": "random", "task": tiny_task()}
    there = {**asks, "output": tmp_path / "run"}
    first = merging.merge(pool_states, should_stop=stop, **there)
    assert first.report.status == "interrupted"
    again = merging.merge([dict(state) for state in pool_states], resume=True, **there)
    assert again.report.content_hash == merging.merge(pool_states, **asks).report.content_hash
    changed = [*pool_states[:-1], {name: tensor + 1 for name, tensor in pool_states[-1].items()}]
    with pytest.raises(MergingError, match="cannot be resumed: inputs"):
        merging.merge(changed, resume=True, **there)


@pytest.fixture
def pool_states(tmp_path: Path) -> list[dict[str, torch.Tensor]]:
    from merging.testing import tiny_pool

    return [checkpoint.load() for checkpoint in tiny_pool(tmp_path / "tiny", models=3).checkpoints]


def test_check_takes_them() -> None:
    found = merging.check([net(), net(1)], "uniform")
    assert found.errors == ()
    assert [model.path for model in found.models] == [f"{MEMORY}/model_0", f"{MEMORY}/model_1"]
    odd = merging.check({"a": net(), "b": nn.Linear(2, 2), "c": net(2)}, merging.Uniform)
    assert any("b" in error for error in odd.errors)


def test_evaluate_and_the_others_take_them(pool_states: list[dict[str, torch.Tensor]]) -> None:
    task = tiny_task()
    scored = merging.evaluate(pool_states[0], task)
    assert scored["held-out"].samples == len(task.held_out)
    assert merging.interpolate(pool_states[:2], task, steps=2).first == "model_0"
    assert merging.inspect_pool(pool_states, "whole").pool == ("model_0", "model_1", "model_2")


def optimizer_state() -> dict[str, Any]:
    """As Adam gives it."""
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    return {"state": {0: moments}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: [1, 2], "item 0 of the pool is an int; give a path"),
        (lambda: [None], "item 0 of the pool is None"),
        (lambda: {"a": 3}, "'a' in the pool is an int"),
        (lambda: {1: net()}, "the pool is a mapping with an int for a name"),
        (lambda: None, "the pool is None"),
        (lambda: [], "no models given"),
        (lambda: "", "the pool is an empty path"),
        (lambda: nn.Linear, "the pool is the class Linear"),
        (lambda: torch.ones(2), "the pool is a Tensor of shape [2]"),
        (optimizer_state, f"{MEMORY}/model_0 is an optimizer's state dict; give a module or its state_dict()"),
        (lambda: [optimizer_state()], "is an optimizer's state dict"),
        (lambda: [{"model": net().state_dict(), "epoch": 3}], "is a mapping with a state dict in it; give its 'model'"),
        (lambda: [{}], "is a mapping without tensors"),
        (lambda: [nn.ReLU()], "is a module without tensors"),
        (lambda: [{"w": torch.ones(2).numpy()}], "'w' is a NumPy array; make it a tensor with torch.from_numpy"),
        (lambda: [{"w": torch.ones(2, device="meta")}], f"{MEMORY}/model_0: tensor 'w' is meta"),
        (lambda: [nn.LazyLinear(3)], "has no shape yet; run the module once"),
        (lambda: [{"w": torch.tensor([1.0, torch.nan])}, {"w": torch.ones(2)}], "holds NaN or infinite values"),
        (lambda: [{"w": torch.ones(2)}, {"v": torch.ones(2)}], f"{MEMORY}/model_1 and {MEMORY}/model_0 are different"),
    ],
)
def test_what_is_no_model_is_one_line(wrong: Callable[[], Any], said: str) -> None:
    with pytest.raises((PoolError, CheckpointError)) as error:
        merging.merge(wrong(), "uniform")
    assert said in str(error.value)
    assert len(str(error.value)) < 300


def test_extra_state_that_is_no_tensor_is_left_out() -> None:
    state: Any = OrderedDict(net().state_dict()) | {"0._extra_state": b"x"}
    assert Checkpoint.of(state).notes == ("ignored what is not a tensor: 0._extra_state",)
    assert Checkpoint.of(state).hash == Checkpoint.of(net()).hash


def test_models_on_a_device_are_copied_to_the_cpu(device: str) -> None:
    there = {name: on_device(tensor, device) for name, tensor in net().state_dict().items()}
    assert Checkpoint.of(there).hash == Checkpoint.of(net()).hash


def test_a_strategy_sees_no_difference(tmp_path: Path) -> None:
    """Streaming, tensors that are not linear, and single models: the same bits as from files."""
    models = [net(seed) for seed in range(3)]
    for number, model in enumerate(models):
        torch.save(model.state_dict(), tmp_path / f"model_{number}.pt")
    asked: list[MixStrategy] = [merging.Uniform(), merging.Ties(), merging.Slerp(), merging.TaskArithmetic()]
    for strategy in asked:
        some = slice(0, 2) if strategy.name == "slerp" else slice(None)
        held = merging.merge(models[some], strategy, base=net(9)).state_dict()
        lying = merging.merge(sorted(tmp_path.glob("*.pt"))[some], strategy, base=net(9)).state_dict()
        assert bits(held) == bits(lying)


def test_what_is_read_is_the_callers_own() -> None:
    held = Checkpoint.of(net())
    before = bits(held.load())
    for tensor in held.load().values():
        tensor.zero_()
    assert bits(held.load()) == before


class Refusing(nn.Linear):
    """A module that has no state dict to give."""

    def state_dict(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([{"scale": torch.ones(1), "packed": (torch.ones(2), None)}], "'packed' holds packed tensors"),
        ([Refusing(2, 2)], r"state_dict\(\) of .*model_0 failed: RuntimeError: not today"),
        (
            {"state_dict": {"w": torch.ones(1)}, "epoch": 3},
            "a state dict in it, beside other things: give its 'state_dict'",
        ),
        ({}, "no models given"),
        ({" ": nn.Linear(2, 2)}, "an empty text for a name"),
    ],
)
def test_what_is_no_model_of_plain_tensors_is_told(models: Any, said: str) -> None:
    with pytest.raises(MergingError, match=said):
        ModelPool.open(models)

"""Pools of adapters in runs with a task: strategies, partitioners and searches know them as any models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool
from tests.conftest import TASK, Merge


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """What the tiny models learned, as adapters of rank 1, 2 and 3 with trained biases, their base beside them."""
    tiny_pool(tmp_path / "full", models=3)
    base = load_file(tmp_path / "full/base.safetensors")
    save_file(base, tmp_path / "base.safetensors")
    made = []
    for number in range(3):
        tuned = load_file(tmp_path / f"full/model_{number}.safetensors")
        state, rank = dict[str, torch.Tensor](), number + 1
        for name, weight in base.items():
            if name.endswith(".weight"):
                left, values, right = torch.linalg.svd(tuned[name] - weight, full_matrices=False)
                module = f"base_model.model.{name.removesuffix('.weight')}"
                state[f"{module}.lora_B.weight"] = (left * values)[:, :rank].contiguous()
                state[f"{module}.lora_A.weight"] = right[:rank].contiguous()
            elif name.endswith(".bias"):
                state[f"base_model.model.{name}"] = tuned[name]
        folder = tmp_path / f"adapter_{number}"
        folder.mkdir()
        save_file(state, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "all"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        made.append(folder)
    return made


@pytest.mark.parametrize(
    "options",
    [
        ["--strategy", "greedy"],
        ["--strategy", "manifoldmix", "--partitioner", "layer", "--budget", "12"],
        ["--strategy", "learned"],
        ["--strategy", "fisher"],
        ["--strategy", "wise-ft"],
    ],
    ids=lambda options: options[1],
)
def test_strategies_see_the_full_models(options: list[str], adapters: list[Path], tmp_path: Path, merge: Merge) -> None:
    """A run over adapters gives the bits of the same run over the full models that they stand for."""
    for folder in adapters:
        save_file(Checkpoint(folder, base=Checkpoint("base.safetensors")).load(), f"{folder.name}.safetensors")
    how = ["--task", TASK, "--base", "base.safetensors", "--device", "cpu", "--no-baselines", *options]
    one = merge("run", *adapters, *how, "--output", "one")
    assert one.code == 0, one.err
    two = merge("run", *(f"{folder.name}.safetensors" for folder in adapters), *how, "--output", "two")
    assert two.code == 0, two.err
    reports = [json.loads(Path(name, "report.json").read_text()) for name in ("one", "two")]
    assert reports[0]["content_hash"] == reports[1]["content_hash"]
    assert reports[0]["validation"] == reports[1]["validation"]


def test_adapters_are_scored_over_a_base(adapters: list[Path], merge: Merge) -> None:
    ran = merge("evaluate", *adapters, "--task", TASK)
    assert (ran.code, "does not say of which model" in ran.err, "--base" in ran.err) == (2, True, True)
    ran = merge("evaluate", *adapters, "--task", TASK, "--base", "base.safetensors", "--json")
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["models"]) == 3


def test_a_search_written_as_an_adapter(adapters: list[Path], merge: Merge) -> None:
    """Coefficients per tensor that add up to one are linear: the adapter is the merge itself."""
    how = ["--task", TASK, "--base", "base.safetensors", "--device", "cpu"]
    ran = merge("run", *adapters, *how, "--strategy", "greedy", "--as", "adapter", "--output", "out")
    assert ran.code == 0, ran.err
    assert "exact: nothing of the merge is left out" in " ".join(ran.out.split())
    assert merge("apply", "out", "--output", "full.safetensors").code == 0
    found = Checkpoint("out", base=Checkpoint("base.safetensors")).load()
    for name, tensor in load_file("full.safetensors").items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6)
    ran = merge("evaluate", "out", "full.safetensors", "--task", TASK, "--json")
    assert ran.code == 0, ran.err


def test_adapters_and_full_models_in_one_pool(adapters: list[Path], tmp_path: Path) -> None:
    pool = ModelPool([*adapters, tmp_path / "full/model_0.safetensors"], tmp_path / "base.safetensors")
    assert len(pool) == 4
    assert len({row.hash for row in pool.ingredients}) == 4

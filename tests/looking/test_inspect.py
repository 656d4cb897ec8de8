"""``merge inspect``: an architecture without checkpoints, and the geometry of a pool."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import merging
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK, Merge


def flat(path: Path) -> torch.Tensor:
    state = load_file(path)
    return torch.cat([state[n].reshape(-1).double() for n in sorted(state) if state[n].is_floating_point()])


@pytest.mark.parametrize(("partitioner", "components", "active"), [("clip-c8", 8, 3), ("clip-c26", 26, 20)])
def test_the_published_partition_needs_no_checkpoint(
    merge: Merge, partitioner: str, components: int, active: int
) -> None:
    ran = merge("inspect", "--model", "open_clip:ViT-B-32", "--classes", "1000", "--partitioner", partitioner, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert len(found["components"]) == components
    assert sum(not entry["inert"] for entry in found["components"]) == active
    assert sum(entry["tensors"] for entry in found["components"]) == found["tensors"] == 160
    assert all(set(entry) >= {"name", "tensors", "parameters", "inert"} for entry in found["components"])
    head = next(entry for entry in found["components"] if entry["name"] == "classification_head.weight")
    assert (head["parameters"], head["inert"]) == (512 * 1000, False)


@pytest.mark.parametrize("model", ["timm:resnet18", "torchvision:squeezenet1_1", "torchvision:vit_b_16"])
def test_other_architectures_have_no_inert_component(merge: Merge, model: str) -> None:
    ran = merge("inspect", "--model", model, "--classes", "7", "--json")
    assert ran.code == 0, ran.err
    assert [entry["inert"] for entry in json.loads(ran.out)["components"]] == [False]


def test_distances_cosines_and_barriers_are_those_of_the_definition(merge: Merge, pool_folder: Path) -> None:
    pattern, base = str(pool_folder / "model_*.safetensors"), pool_folder / "base.safetensors"
    ran = merge(
        "inspect",
        "--models",
        pattern,
        "--base",
        base,
        "--task",
        TASK,
        "--partitioner",
        "layer",
        "--barriers",
        "all",
        "--json",
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    files = [pool_folder / f"{name}.safetensors" for name in found["pool"]]
    weights, centre = [flat(path) for path in files], flat(base)
    for i, j in itertools.product(range(5), repeat=2):
        assert found["distances"][i][j] == pytest.approx(float((weights[i] - weights[j]).norm()), abs=1e-6)
        expected = float(torch.cosine_similarity(weights[i] - centre, weights[j] - centre, dim=0))
        assert found["cosines"][i][j] == pytest.approx(expected, abs=1e-6)
    assert found["norm"] == pytest.approx(float(centre.norm()))
    assert len(found["barriers"]) == 10
    task = tiny_task()
    for barrier in found["barriers"][:3]:
        ends = [load_file(pool_folder / f"{barrier[end]}.safetensors") for end in ("first", "second")]
        module = task.build(merging.ModelPool.open([pattern]))
        module.load_state_dict(
            {n: (ends[0][n] + ends[1][n]) / 2 if ends[0][n].is_floating_point() else ends[0][n] for n in ends[0]}
        )
        right = (module.eval()(task.held_out.inputs).argmax(1) == task.held_out.labels).sum()
        assert barrier["midpoint"] == pytest.approx(float(right) / len(task.held_out))
        assert barrier["height"] == pytest.approx(sum(barrier["ends"]) / 2 - barrier["midpoint"])


def test_spread_is_the_distance_from_the_mean(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path, models=3, base=False)
    found = merging.inspect_pool(pool, merging.Whole())
    assert found.geometry is not None
    stack = torch.stack([flat(checkpoint.path) for checkpoint in pool.checkpoints])
    spread = (stack - stack.mean(0)).square().sum(1).mean().sqrt() / stack[0].norm()
    assert found.geometry.spread == pytest.approx([float(spread)])
    assert found.geometry.cosines is None
    assert not found.marked


def test_duplicates_are_named(merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(pool_folder / "model_0.safetensors", tmp_path / f"{name}.safetensors")
    shutil.copy(pool_folder / "model_1.safetensors", tmp_path / "c.safetensors")
    ran = merge("inspect", "--models", tmp_path)
    assert ran.code == 0, ran.err
    assert "a, b hold the same weights" in ran.out
    assert "Which are inert is not known" in ran.out


def test_a_pool_under_an_architecture(merge: Merge, tmp_path: Path) -> None:
    source = merging.model_source("timm:resnet18")
    for seed in range(2):
        state = {name: tensor.clone() for name, tensor in source.module(5).state_dict().items()}
        state["fc.bias"] += seed
        save_file(state, tmp_path / f"m{seed}.safetensors")
    ran = merge("inspect", "--models", tmp_path, "--model", "timm:resnet18", "--partitioner", "layer", "--json")
    assert ran.code == 0, ran.err
    entries = {entry["name"]: entry for entry in json.loads(ran.out)["components"]}
    assert entries["fc"]["active"]
    assert not entries["fc"]["constant"]
    assert entries["conv1"]["constant"]
    assert entries["fc"]["spread"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "open_clip:ViT-B-32"], "(--classes)"),
        (["--model", "open_clip:ViT-B-33", "--classes", "3"], "did you mean 'ViT-B-32'"),
        (["--model", "timm:resnet81", "--classes", "3"], "did you mean 'resnet"),
        (["--model", "torchvision:squeezenet", "--classes", "3"], "did you mean 'squeezenet"),
        (["--model", "tim:resnet18"], "did you mean 'timm'"),
        (["--model", "timm:resnet18", "--partitioner", "clip-c8"], "needs a CLIP image tower"),
        (["--classes", "3"], "--model"),
        (["--model", "timm:resnet18", "--classes", "0"], "1 or more"),
        (["--models", "nothing-*.pt"], "no models match"),
    ],
)
def test_mistakes_are_one_line(merge: Merge, arguments: list[str], said: str) -> None:
    ran = merge("inspect", *arguments)
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert said in errors[0]


def test_terminal_view_of_the_built_in_pool(merge: Merge) -> None:
    ran = merge("inspect", "--barriers", "none", "--tensors")
    assert ran.code == 0, ran.err
    assert "8 components, 3 active; 64 tensors" in ran.out
    assert "model_13" in ran.out
    assert "model.visual.transformer.resblocks.3.mlp.c_proj.bias" in ran.out
    assert np.isfinite([float(word) for word in ran.out.split() if word.replace(".", "", 1).isdigit()]).all()

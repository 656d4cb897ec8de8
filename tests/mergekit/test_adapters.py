"""MODEL+ADAPTER in a configuration is that adapter on that model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Merge

GOLDEN = Path(__file__).parents[1] / "storage" / "adapters"


@pytest.fixture
def here(merge: Merge) -> Path:
    """A working folder with a base and adapters that do not say where it is."""
    shutil.copytree(GOLDEN / "bases/vit", "base")
    shutil.copytree("base", "other")
    for name in ("plain", "rooted"):
        shutil.copytree(GOLDEN / "adapters" / name, name)
        config = Path(name, "adapter_config.json")
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "gone"}))
    return Path.cwd()


def write(method: str, models: list[Any], **more: Any) -> None:
    entries = [{"model": model, "parameters": {"weight": 0.5}} for model in models]
    Path("config.yml").write_text(json.dumps({"merge_method": method, "models": entries, **more}), encoding="utf-8")


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_the_same_as_the_adapters_by_themselves(method: str, merge: Merge, here: Path) -> None:
    lora = {"model": {"path": "base"}, "lora": "rooted"}
    write(method, ["base+plain", lora], **({"base_model": "base"} if method == "task_arithmetic" else {}))
    assert merge("run", "config.yml", "--output", "one").code == 0
    strategy = ["weighted", "-o", "strategy.normalize=true"] if method == "linear" else ["task-arithmetic"]
    words = [*strategy, "-o", "strategy.weights=plain=0.5", "-o", "strategy.weights=rooted=0.5"]
    words += [] if method == "linear" else ["-o", "strategy.scale=1"]
    ran = merge("run", "plain", "rooted", "--base", "base", "--strategy", *words, "--output", "two")
    assert ran.code == 0, ran.err
    one, two = (load_file(f"{name}/model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_what_cannot_be_said_is_one_line(merge: Merge, here: Path) -> None:
    for models, more, said in (
        (["base+plain", "other+rooted"], {}, "another adapter or the base is"),
        (["base+plain", "base"], {}, "which is merged too, and does not name it as its base"),
        (["base+plain"], {"base_model": "base+rooted"}, "base_model is a model with an adapter"),
    ):
        write("linear" if not more else "ties", models, **more)
        ran = merge("convert", "config.yml")
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert "config.yml, line 1" in ran.err


def test_beside_its_own_base_where_the_adapter_names_it(merge: Merge, here: Path) -> None:
    config = Path("plain", "adapter_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "base"}))
    write("linear", ["base+plain", "base"])
    assert merge("run", "config.yml", "--output", "one").code == 0
    base, one = load_file("base/model.safetensors"), load_file("one/model.safetensors")
    assert base.keys() == one.keys()
    assert any(not torch.equal(base[name], one[name]) for name in base)

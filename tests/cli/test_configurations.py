"""`merge run config.yml`, `merge convert`, `merge check` on configurations of mergekit."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TASK, Merge


@pytest.fixture
def config(merge: Merge, pool_folder: Path) -> Path:
    """A configuration in the working folder, of task vectors with weights by name."""
    weights = {"model_0": 0.5, "model_1": [{"filter": "bias", "value": 0.1}, {"value": 0.3}]}
    content = {
        "merge_method": "task_arithmetic",
        "base_model": str(pool_folder / "base.safetensors"),
        "models": [
            {"model": str(pool_folder / f"{name}.safetensors"), "parameters": {"weight": weight}}
            for name, weight in weights.items()
        ],
        "parameters": {"lambda": 0.9, "int8_mask": True, "density": 0.5},
        "dtype": "float32",
    }
    path = Path("config.yml")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def same(first: str, second: str) -> bool:
    a, b = (load_file(Path(folder) / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_converted_is_the_same_merge(merge: Merge, config: Path, pool_folder: Path) -> None:
    assert merge("run", config, "--output", "one").code == 0
    ran = merge("convert", config, "--output", "mine.toml")
    assert (ran.code, "merge run --task mine.toml" in ran.out) == (0, True), ran.err
    assert merge("run", "--task", "mine.toml", "--output", "two").code == 0
    assert merge("apply", "one", "--output", "three").code == 0
    assert same("one", "two")
    assert same("one", "three")
    base, first, second = (load_file(pool_folder / f"{name}.safetensors") for name in ("base", "model_0", "model_1"))
    found = load_file("one/model.safetensors")
    for name, tensor in found.items():
        if tensor.is_floating_point():
            share = 0.1 if "bias" in name else 0.3
            wanted = base[name] + 0.9 * (0.5 * (first[name] - base[name]) + share * (second[name] - base[name]))
            torch.testing.assert_close(tensor, wanted)
    assert json.loads(Path("one/report.json").read_text())["strategy"] == "task-arithmetic"


def test_what_is_printed_is_the_file(merge: Merge, config: Path) -> None:
    printed, written = merge("convert", config), merge("convert", config, "--output", "merge.toml")
    tables = tomllib.loads(printed.out)
    assert tables == tomllib.loads(Path("merge.toml").read_text(encoding="utf-8"))
    assert tables["run"]["options"]["strategy"]["weights"] == ["model_0=0.5", "model_1=0.3", "model_1@bias=0.1"]
    assert written.out.rstrip().endswith("Merge with: merge run")
    assert merge("convert", config, "--json").out


def test_what_changes_nothing_is_said(merge: Merge, config: Path) -> None:
    config.write_text(config.read_text().replace('"bias"', '"baias"'))
    ran = merge("run", config, "--dry-run")
    assert ran.code == 0
    assert "config.yml: parameters.int8_mask changes nothing" in ran.err
    assert "config.yml: parameters.density changes nothing" in ran.err
    assert "models[1].parameters.weight: the filter 'baias' is in no tensor's name" in ran.err
    assert "Everything fits" in ran.out


def test_flags_come_before_the_file(merge: Merge, config: Path) -> None:
    assert merge("run", config, "--output", "half", "--dtype", "bfloat16", "-o", "strategy.scale=0").code == 0
    found = load_file("half/model.safetensors")
    assert {tensor.dtype for tensor in found.values() if tensor.is_floating_point()} == {torch.bfloat16}


def test_another_strategy_is_no_flag_beside_the_options_of_the_file(merge: Merge, config: Path) -> None:
    for flag, value in (("--strategy", "uniform"), ("--partitioner", "whole")):
        ran = merge("run", config, flag, value, "--output", "out")
        assert (ran.code, f"leave {flag} out" in ran.err) == (2, True), ran.err
    assert merge("run", config, "--strategy", "task-arithmetic", "--output", "out").code == 0


def test_with_a_task_it_is_scored(merge: Merge, config: Path) -> None:
    Path("task.toml").write_text(f'[task]\nname = "{TASK}"\n[pool]\nmodels = ["nowhere"]\n', encoding="utf-8")
    for number, words in enumerate((["--task", TASK], ["--task", "task.toml", "--trust-code"])):
        ran = merge("run", config, *words, "--no-tests", "--output", f"scored{number}")
        assert ran.code == 0, ran.err
        report = json.loads(Path(f"scored{number}/report.json").read_text())
        assert report["validation"]["merged"] > 0
        assert report["strategy"] == "task-arithmetic"
    assert merge("run", config, "--task", "task.toml").code == 2, "a file that wants to run code"
    checked = merge("check", config, "--task", TASK)
    assert checked.code == 0, checked.err


def test_names_may_hold_what_means_something_in_options(merge: Merge, config: Path, pool_folder: Path) -> None:
    names = ("a@1[x]=.safetensors", "b@2*.safetensors")
    for number, name in enumerate(names):
        shutil.copy(pool_folder / f"model_{number}.safetensors", name)
    content = json.loads(config.read_text())
    for entry, name in zip(content["models"], names, strict=True):
        entry["model"] = name
        entry["parameters"]["weight"] = [0.2, 0.4] if name == names[0] else 0.3
    renamed = Path("renamed.yml")
    renamed.write_text(
        json.dumps(content | {"merge_method": "ties"}).replace('"density": 0.5', '"density": [0.5, 0.9]')
    )
    assert merge("run", renamed, "--output", "one").code == 0
    for number, entry in enumerate(content["models"]):
        entry["model"] = str(pool_folder / f"model_{number}.safetensors")
    renamed.write_text(
        json.dumps(content | {"merge_method": "ties"}).replace('"density": 0.5', '"density": [0.5, 0.9]')
    )
    assert merge("run", renamed, "--output", "two").code == 0
    assert same("one", "two")


def test_nothing_is_read_of_a_merge_toml_that_nobody_named(merge: Merge, config: Path) -> None:
    Path("merge.toml").write_text("[[[", encoding="utf-8")
    assert merge("run", config, "--dry-run").code == 0

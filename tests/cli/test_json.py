"""``--json`` on every command: standard output is one JSON document, whatever happens beside it."""

from __future__ import annotations

import glob
import json
import re
from pathlib import Path

import click
import pytest

import merging
from merging.cli.main import COMMANDS, cli
from tests.conftest import TASK, Merge
from tests.harness.conftest import write_results

ROOT = Path(__file__).parents[2]
COMMON = ["--task", TASK]
CALLS: dict[str, list[str]] = {
    "run": ["@models", *COMMON, "--partitioner", "layer", "--strategy", "greedy", "--output", "new"],
    "check": ["@models", *COMMON, "--no-baselines", "--strategy", "uniform"],
    "finetune": [*COMMON, "--base", "@base", "--models", "1", "--set", "epochs=1", "--output", "pool", "--jobs", "1"],
    "benchmark": ["@models", *COMMON, "--strategies", "best,uniform", "--output", "bench"],
    "inspect": ["@models", *COMMON],
    "evaluate": ["@one", *COMMON],
    "harness": ["scored"],
    "runs": [],
    "report": ["run"],
    "list": ["tasks"],
    "describe": ["greedy"],
    "new": ["strategy", "top-k"],
    "completion": ["bash"],
    "cache": [],
    "init": ["--models", "@folder", "--no-try", "--yes"],
    "apply": ["run", "--output", "again.safetensors"],
    "convert": ["@configuration"],
    "push": ["run", "ours/merged", "--dry-run"],
}
"""Command → how it is called here; ``run`` is a folder of a finished run, ``scored`` one of lm-eval's results."""


@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output_is_one_document(merge: Merge, name: str, pool_folder: Path) -> None:
    assert name in CALLS, f"say in CALLS how merge {name} is called"
    models = [str(pool_folder / f"model_{index}.safetensors") for index in range(3)]
    finished = ["run", *models, *COMMON, "--strategy", "uniform", "--no-tests", "--output", "run"]
    if {"run", "runs"} & {name, *CALLS[name]} and name != "run":
        assert merge(*finished).code == 0
    write_results(Path("scored"), {"quiz": {"acc": [1.0, 0.0]}}, {"quiz": {"acc,none": 0.5}})
    weighed = [{"model": model, "parameters": {"weight": 1}} for model in models]
    Path("config.yml").write_text(json.dumps({"merge_method": "linear", "models": weighed}), encoding="utf-8")
    marks = {
        "@models": models,
        "@base": [str(pool_folder / "base.safetensors")],
        "@one": models[:1],
        "@folder": [str(pool_folder)],
        "@configuration": ["config.yml"],
    }
    ran = merge(name, *(word for part in CALLS[name] for word in marks.get(part, [part])), "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out), "one document, and nothing else"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_flag(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert "--json" in {flag for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize(
    "call", [["run", "nowhere.pt"], ["runs", "nowhere"], ["apply", "nowhere"], ["list", "nothing"]]
)
def test_an_error_is_no_document(merge: Merge, call: list[str]) -> None:
    ran = merge(*call, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].startswith("error:")


def test_a_run_prints_its_report(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "greedy", "--output", "out", "--json")
    report = json.loads(Path("out/report.json").read_bytes())
    said = json.loads(ran.out)
    assert {name: said[name] for name in report} == report
    assert Path(said["folder"]) == Path("out").absolute()
    assert all(Path(path).is_file() for path in said["paths"])
    assert merge("run", "--resume", "out", "--trust-code", "--json").code == 0, (
        "how a report is shown is no part of the run"
    )


def test_a_plan_is_a_document(merge: Merge, tiny: list[str]) -> None:
    said = json.loads(merge(*tiny, "--dry-run", "--json").out)
    assert [component["name"] for component in said["components"]]
    assert said["plugins"]["strategy"]["name"] == "manifoldmix"
    assert said["sets"]["held-out"] > 0


def test_every_variable_is_in_the_table() -> None:
    table = (ROOT / "docs" / "cli.md").read_text().partition("## Environment variables")[2]
    folders = (Path(merging.__file__).parent, ROOT / "tests")
    sources = [Path(name) for folder in folders for name in glob.glob(f"{folder}/**/*.py", recursive=True)]
    found = {name for path in sources for name in re.findall(r"[\"'](MERGING_[A-Z_]+)[\"']", path.read_text())}
    assert {"MERGING_TRACEBACK", "MERGING_CACHE"} <= found
    assert all(f"`{name}`" in table for name in found), "add it to IN_COMMON of docs/build_reference.py"


def test_merge_alone_is_its_help(merge: Merge) -> None:
    alone = merge()
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == merge("--help").out

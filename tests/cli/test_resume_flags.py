"""What is typed beside ``--resume``: another value of any option of ``merge run`` is refused, the same one is fine."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

from merging.cli.asking.resumed import COSTS, FREE
from merging.cli.run import command
from tests.conftest import TASK, Merge

TENSORBOARD = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard comes with dev-full")
WHEN = ("--budget", "3", "--optimizer", "random", "--no-tests", "--seed", "7")
OPTIONS = {option.name: option for option in command.params if isinstance(option, click.Option)}
FREELY = {*FREE, "output", "overwrite"}
VALUES: dict[str, tuple[str, ...]] = {
    "models": ("", "elsewhere/*.safetensors"),
    "format": ("pt",),
    "options": ("strategy.tau=0", "strategy.tau=0.5"),
    "recalibrate": ("--recalibrate", "--no-recalibrate"),
}
"""Where any text or number would not do: falsy ones first."""


def typed() -> list[Any]:
    """Each option with a falsy and a truthy value that is not the one of the run."""
    found = []
    for name, option in OPTIONS.items():
        if name in FREELY:
            continue
        if name in VALUES:
            values = VALUES[name]
        elif option.is_flag:
            values = (option.opts[0],)
        else:
            values = {"integer": ("0", "4"), "float": ("0", "0.25")}.get(option.type.name, ("", "other"))
        for value in values:
            flags = [value] if option.is_flag else [option.opts[-1], value]
            found.append(pytest.param(str(name), flags, id=" ".join(flags)))
    return found


SAME_AS_NOTHING = {("key", ""), ("tests", "--no-tests")}
"""Nothing given then, nothing given now; and the one switch that was set."""
NO_NAME = {("base", ""), ("models", "")}
"""What a shell makes of an empty variable."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pool_folder: Path) -> Path:
    """A finished run, made once; its files are looked at, never changed."""
    from click.testing import CliRunner

    folder = tmp_path_factory.mktemp("run") / "out"
    flags = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, *WHEN, "--output", str(folder)]
    ran = CliRunner().invoke(command, [*flags, "-o", "strategy.tau=0.9"])
    assert ran.exit_code == 0, ran.output
    return folder


def test_every_option_is_tried() -> None:
    names = {parameter.values[0] for parameter in typed()}
    assert names == set(OPTIONS) - FREELY
    assert {"seed", "budget", "baselines", "as_stored", "precision", "freeze", "plugin"} <= names


@pytest.mark.parametrize(("name", "flags"), typed())
def test_another_value_is_refused(name: str, flags: list[str], made: Path, merge: Merge) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in made.iterdir() if file.is_file()}
    ran = merge("run", "--resume", made, "--trust-code", *flags, "--dry-run")
    if (name, flags[-1]) in SAME_AS_NOTHING:
        assert ran.code == 0, ran.err
        return
    assert ran.code == 2, ran.out
    if (name, flags[-1]) in NO_NAME:
        assert "an empty name is no model" in ran.err
        return
    assert f"{made} cannot be resumed: " in ran.err
    assert (f"-o {flags[-1].split('=')[0]}" if name == "options" else flags[0].replace("--no-", "")[-5:]) in ran.err
    assert " was " in ran.err
    assert ", is " in ran.err
    assert "start a new run" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert {file.name: file.stat().st_mtime_ns for file in made.iterdir() if file.is_file()} == before


@pytest.mark.parametrize(
    "flags",
    [
        WHEN,
        ("--seed", "7"),
        ("--no-tests",),
        ("-o", "strategy.tau=0.90"),
        ("-o", "strategy.passes=1"),  # a default, which the journal's header has
        ("--format", "safetensors"),
        ("--precision", "auto"),
        ("--accumulate", "float64"),
        ("--task", TASK),
        ("--strategy", "manifoldmix", "--partitioner", "whole", "--objective", "accuracy"),
    ],
    ids=" ".join,
)
def test_the_same_value_is_fine(flags: tuple[str, ...], made: Path, merge: Merge) -> None:
    ran = merge("run", "--resume", made, "--trust-code", *flags, "--dry-run")
    assert ran.code == 0, ran.err


def test_the_same_models_are_fine(made: Path, merge: Merge, pool_folder: Path) -> None:
    flags = ["--models", str(pool_folder / "model_*.safetensors"), "--key", "net"]
    assert merge("run", "--resume", made, "--trust-code", *flags[:2], "--dry-run").code == 0
    ran = merge("run", "--resume", made, "--trust-code", *flags, "--dry-run")
    assert ran.code == 2
    assert "--key was empty, is net" in ran.err


@pytest.mark.parametrize(
    "flags",
    [
        *(("--cache-memory", "0"), ("--no-exact-savings",), ("--dtype", "float32"), ("--no-pool-tests",)),
        *(("--verify",), ("--workers", "3"), ("--workers", "none"), ("--sink", "none")),
        pytest.param(("--sink", "tensorboard"), marks=TENSORBOARD),
    ],
    ids=" ".join,
)
def test_what_costs_may_change(flags: tuple[str, ...], made: Path, merge: Merge) -> None:
    own = {"cache_memory", "exact_savings", "dtype", "max_evaluations", "pool_tests", "remember", "verify", "workers"}
    own |= {"sinks"}
    assert own == set(COSTS)
    ran = merge("run", "--resume", made, "--trust-code", *flags, "--dry-run")
    assert ran.code == 0, ran.err


def test_the_number_of_threads_that_the_run_had_may_be_said(made: Path, merge: Merge) -> None:
    """By rule it depends on what is granted, which may be another number now."""
    had = json.loads((made / "report.json").read_text())["numerics"]["threads"]
    assert merge("run", "--resume", made, "--trust-code", "--threads", str(had), "--dry-run").code == 0
    ran = merge("run", "--resume", made, "--trust-code", "--threads", str(had + 1), "--dry-run")
    assert ran.code == 2
    assert f"--threads was not given, is {had + 1}" in ran.err


def test_another_number_of_threads_by_rule_is_the_one_of_then(merge: Merge, pool_folder: Path) -> None:
    """As after a run on a machine with other cores, or without workers, which have one thread each."""
    flags = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--strategy", "greedy", "--no-tests"]
    assert merge("run", *flags, "--threads", "2", "--output", "out").code == 0
    before = Path("out/model.safetensors").read_bytes()
    journal = Path("out/events.jsonl")
    first, *rest = journal.read_text().splitlines(keepends=True)[:-1]
    begun = json.loads(first)
    begun["request"]["threads"] = None  # by rule
    journal.write_text("".join([json.dumps(begun) + "\n", *rest]))
    ran = merge("run", "--resume", "out", "--trust-code")
    assert ran.code == 0, ran.err
    assert "it goes on with 2 threads, as it began: another number has other last bits" in ran.err
    assert json.loads(Path("out/report.json").read_text())["numerics"]["threads"] == 2
    assert Path("out/model.safetensors").read_bytes() == before


def test_what_merge_toml_said_is_what_counts(merge: Merge, pool_folder: Path) -> None:
    """Also where it is not at hand any more, and where it was a task's file."""
    task = '[task]\nname = "digits"\n'
    Path("merge.toml").write_text("[run]\nbaselines = false\nseed = 0\nfreeze = ['fc1']\n")
    Path("task.toml").write_text(task)
    flags = ["--models", str(pool_folder / "model_*.safetensors"), "--strategy", "uniform", "--output", "out"]
    assert merge("run", *flags).code == 0
    Path("merge.toml").unlink()
    for fine in (["--no-baselines"], ["--seed", "0"], ["--freeze", "fc1"]):
        ran = merge("run", "--resume", "out", *fine, "--dry-run")
        assert ran.code == 0, ran.err
    for other, said in [
        (["--freeze", "fc2"], "--freeze was fc1, is fc2"),
        (["--seed", "1"], "--seed was 0, is 1"),
        (["--task", "task.toml"], "--task was not given, is digits"),
    ]:
        ran = merge("run", "--resume", "out", *other)
        assert ran.code == 2
        assert said in ran.err


def test_several_differences_are_all_named(made: Path, merge: Merge) -> None:
    ran = merge("run", "--resume", made, "--trust-code", "--seed", "0", "--no-baselines", "--budget", "0")
    assert ran.code == 2
    for said in ("--seed was 7, is 0", "--no-baselines: baselines was on, is off", "--budget was 3, is 0"):
        assert said in ran.err


def test_an_empty_folder_name_is_no_new_run(merge: Merge) -> None:
    ran = merge("run", "--resume", "")
    assert ran.code == 2
    assert "nothing to resume" in ran.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("flags", [("--output", "x"), ("--output", ""), ("--overwrite",)])
def test_a_second_folder_is_refused(flags: tuple[str, ...], made: Path, merge: Merge) -> None:
    ran = merge("run", "--resume", made, "--trust-code", *flags)
    assert ran.code == 2
    assert "leave --output and --overwrite out" in ran.err
    assert json.loads((made / "report.json").read_text())["status"] == "finished"


def test_a_run_of_a_version_with_fewer_settings_goes_on(made: Path, merge: Merge) -> None:
    """What its request does not hold was the default; a setting that is added later ends no run."""
    shutil.copytree(made, "older")
    journal = Path("older/events.jsonl")
    first, *rest = journal.read_text().splitlines(keepends=True)[:-1]
    begun = json.loads(first)
    for name in ("precision", "tune", "compile", "threads", "as_stored", "cache_memory", "exact_savings", "dtype"):
        del begun["request"][name]
    journal.write_text("".join([json.dumps(begun) + "\n", *rest]))
    ran = merge("run", "--resume", "older", "--trust-code")
    assert ran.code == 0, ran.err
    assert Path("older/model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()

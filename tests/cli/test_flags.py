"""What the core says of settings, as a person at the command line reads it."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from merging.cli.main import COMMANDS, cli
from merging.cli.showing.flags import in_flags
from tests.conftest import ENVIRONMENT, TASK

ROOT = Path(__file__).parents[2]

ASKED = [
    (found, param)
    for name in COMMANDS
    if (found := cli.get_command(click.Context(cli), name)) is not None
    for param in found.params
    if isinstance(param, click.Option)
]
"""Every option of every command."""
NAMES = [f"{asked.name}-{param.name}" for asked, param in ASKED]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def parsed(asked: click.Command, words: list[str]) -> dict[str, Any]:
    """What a command takes from these words, by parameter."""
    typed = {word for word in words if word.startswith("-")}
    needed = [
        word for param in asked.params if param.required and not typed & {*param.opts} for word in _example(param)
    ]
    with asked.make_context(asked.name, [*words, *needed]) as context:
        return context.params


def _example(param: click.Parameter) -> list[str]:
    return ["x"] if isinstance(param, click.Argument) else [param.opts[0], "x"]


@pytest.mark.parametrize(("asked", "param"), ASKED, ids=NAMES)
def test_what_is_shown_can_be_typed(asked: click.Command, param: click.Option) -> None:
    """A flag that a message shows is read back by the same command as the value that the message gave."""
    if param.is_flag:
        values = ["True", "False"]
    elif isinstance(param.type, click.Choice):
        values = list(param.type.choices)
    elif isinstance(param.type, (click.types.IntParamType, click.IntRange)):
        values = ["1", "17"]
    else:
        values = ["0.25"] if param.type is click.FLOAT else ["x", "*.pt"]
    if param.nargs != 1:
        return
    for value in values:
        said = in_flags(f"leave `{param.name}={value}` out", asked)
        if "`" in said:  # a switch that has no such side
            assert param.is_flag
            assert value == ("True" if param.flag_value is False else "False")
            continue
        words = shlex.split(said.removeprefix("leave ").removesuffix(" out"))
        found = parsed(asked, words)[param.name]
        assert str(found[-1] if param.multiple else found) == value


@pytest.mark.parametrize(
    ("core", "shown"),
    [
        ("`max_evaluations` 3 does not even rank 14", "--max-evaluations 3 does not even rank 14"),
        ("choose another `output`", "choose another --output"),
        ("pass `dtype=float32`, or smaller ones", "pass --dtype float32, or smaller ones"),
        ("leave out `compile`.", "leave out --compile."),
        ("use `compile=True`; x", "use --compile; x"),
        ("statistics (`recalibrate=False`)", "statistics (--no-recalibrate)"),
        ("with `recalibrate=True`", "with --recalibrate"),
        ("with `baselines=False`", "with --no-baselines"),
        ("with `strategy.tau=0.9`", "with -o strategy.tau=0.9"),
        ("such as `partitioner.patterns=rest=.*`", "such as -o 'partitioner.patterns=rest=.*'"),
        ("choose one with `key=model a`, or", "choose one with --key 'model a', or"),
        ("with `baselines`", "with `baselines`"),
        ("with `baselines=True`", "with `baselines=True`"),
        ("set `mixup` to 0", "set `mixup` to 0"),
        ("give `jobs=1`", "give `jobs=1`"),
        ("'`seed`' is no model", "'`seed`' is no model"),
        ("/a/`seed`/m.pt: no such file", "/a/`seed`/m.pt: no such file"),
        ("`seed`.pt: no such file", "`seed`.pt: no such file"),
        ("a\x1b[2J `seed`", "a\\x1b[2J --seed"),
    ],
)
def test_names_become_flags_where_the_command_has_them(core: str, shown: str) -> None:
    assert in_flags(core, command("run")) == shown
    assert in_flags(shown, command("run")) == shown


def test_each_command_has_its_own_flags() -> None:
    said = "try `partitioner=layer`, `jobs` or `certify_split`"
    assert in_flags(said, command("benchmark")) == "try --partitioner layer, `jobs` or `certify_split`"
    assert in_flags(said, command("finetune")) == "try `partitioner=layer`, --jobs or `certify_split`"
    assert in_flags(said, command("list")) == said


def test_without_a_command_names_stay_names() -> None:
    assert in_flags("leave out `compile`") == "leave out `compile`"


def test_errors_are_told_in_the_flags_of_the_command_that_ran(merge: Any, tiny: list[str]) -> None:
    ran = merge(*tiny, "--max-evaluations", "1")
    assert ran.code == 2
    assert "--max-evaluations 1 does not even rank" in ran.err
    assert "`" not in ran.err
    assert merge("unknown").code == 2
    assert "did you mean" in merge("lsit").err


def test_json_keeps_the_names_of_python(merge: Any, tiny: list[str]) -> None:
    """What a program reads is what Python says; the same mistake on the terminal is told in flags."""
    flags = ["check", *tiny[1:], "--certify-split", "2"]
    ran = merge(*flags, "--json")
    assert ran.code == 2
    assert any("`certify_split` is 2" in error for error in json.loads(ran.out)["errors"])
    assert "--certify-split is 2" in ran.err
    assert "`" not in merge(*flags).err


@pytest.mark.parametrize("name", ["seed", "output", "threads", "dtype=float16"])
def test_what_somebody_typed_in_backticks_is_no_flag(merge: Any, pool_folder: Path, name: str) -> None:
    """A folder may be called like a setting; only what the core says of settings becomes flags."""
    folder = Path(f"`{name}`")
    folder.mkdir()
    (folder / "x").touch()
    models = ["--models", pool_folder / "model_*.safetensors", "--strategy", "uniform"]
    for arguments in (["report", folder], ["apply", folder], ["run", *models, "--output", folder]):
        ran = merge(*arguments)
        assert ran.code == 2
        assert f"error: {folder} holds " in ran.err or f"error: no recipe at {folder}/" in ran.err
    assert ("choose another --output" in ran.err) is (name != "output")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--regime", "papa", "--models", "2", "--sweep", "sweep.toml"], "give one value, such as --set epochs=3"),
        (["--linear-probe", "-1"], "--linear-probe is -1; it is a number of epochs"),
        (["--models", "1", "--regime", "papa"], "ask for --models 2 or more"),
    ],
)
def test_finetune_says_what_can_be_typed(merge: Any, pool_folder: Path, flags: list[str], said: str) -> None:
    Path("sweep.toml").write_text("epochs = [1, 2, 3]\n", encoding="utf-8")
    ran = merge("finetune", "--task", TASK, "--base", pool_folder / "base.safetensors", "--output", "tuned", *flags)
    assert ran.code == 2
    assert said in ran.err
    assert "`" not in ran.err
    assert not Path("tuned").exists()


def test_apply_says_what_can_be_typed(merge: Any, pool_folder: Path) -> None:
    models = ["--models", pool_folder / "model_*.safetensors"]
    assert merge("run", *models, "--strategy", "uniform", "--output", "out").code == 0
    ran = merge("apply", "out", "--output", "out", "--overwrite")
    assert (ran.code, ran.err) == (
        2,
        "error: out holds other files; choose another --output: a folder that is empty or not there\n",
    )
    for flags in (["--accumulate", "float32"], ["--max-shard-size", "1MB"]):
        ran = merge("apply", "out", "--output", "x.pt", *flags)
        assert ran.code == 2
        assert "give --output a name that ends in .safetensors" in ran.err


def test_a_line_without_a_task_is_told_what_it_needs(merge: Any, pool_folder: Path) -> None:
    ran = merge("inspect", "--models", pool_folder / "model_*.safetensors", "--interpolate", "model_0", "model_1")
    assert ran.code == 2
    assert "a line is scored: give --task" in ran.err


def test_a_working_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    command = f"rmdir {tmp_path}/gone; {sys.executable} -m merging run --models x"
    (tmp_path / "gone").mkdir()
    ran = subprocess.run(  # noqa: S602
        command,
        shell=True,
        cwd=tmp_path / "gone",
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert ran.stderr == "error: the working folder is gone; change to one that is there\n"

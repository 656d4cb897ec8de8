"""What the core says of settings, as a person at the command line reads it."""

import json
import shlex
from typing import Any

import click
import pytest

from merging.cli.main import COMMANDS, cli
from merging.cli.showing.flags import in_flags

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

"""Models that stand alone on the command line, as a shell gives them, are those of ``--models``."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from merging.cli.asking.request import command_line
from tests.conftest import TASK, Merge

UNIFORM = ["run", "--strategy", "uniform"]


@pytest.fixture
def files(pool_folder: Path) -> list[str]:
    """Three checkpoints, as a shell makes them of a pattern."""
    return [str(pool_folder / f"model_{index}.safetensors") for index in range(3)]


def _pool(folder: str = "out") -> list[str]:
    return list(json.loads((Path(folder) / "report.json").read_bytes())["pool"])


@pytest.mark.parametrize(
    "order",
    [
        lambda files: [*UNIFORM, *files],
        lambda files: ["run", *files, "--strategy", "uniform"],
        lambda files: [*UNIFORM, "--models", *files],
        lambda files: ["run", files[0], "--strategy", "uniform", "--models", files[1], files[2]],
        lambda files: [*UNIFORM, "--", *files],
    ],
    ids=["behind", "before", "unquoted", "both", "dashes"],
)
def test_the_order_and_the_flag_make_no_difference(
    merge: Merge, files: list[str], order: Callable[[list[str]], list[str]]
) -> None:
    command, *rest = order(files)
    ran = merge(command, "--output", "out", *rest)
    assert ran.code == 0, ran.err
    assert sorted(_pool()) == ["model_0", "model_1", "model_2"]


def test_a_folder_and_a_quoted_pattern(merge: Merge, pool_folder: Path) -> None:
    assert merge(*UNIFORM, pool_folder, "--output", "out").code == 0
    assert merge(*UNIFORM, pool_folder / "model_[01].*", "--output", "two").code == 0
    assert len(_pool()) > 3
    assert _pool("two") == ["model_0", "model_1"]


def test_a_name_that_begins_with_a_dash(merge: Merge, files: list[str], tmp_path: Path) -> None:
    for file in files[:2]:
        (tmp_path / f"-{Path(file).name}").write_bytes(Path(file).read_bytes())
    ran = merge(*UNIFORM, "--output", "out", "--", "-model_0.safetensors", "-model_1.safetensors")
    assert ran.code == 0, ran.err
    assert _pool() == ["-model_0", "-model_1"]


def test_models_that_stand_alone_overrule_those_of_the_file(merge: Merge, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "merge.toml").write_text(f"[pool]\nmodels = [{files[2]!r}]\n[run]\nstrategy = 'uniform'\n")
    assert merge("run", *files[:2], "--output", "out").code == 0
    assert _pool() == ["model_0", "model_1"]


def test_what_is_recorded_can_be_typed_again(merge: Merge, files: list[str], tmp_path: Path) -> None:
    odd = tmp_path / "a b$.safetensors"
    odd.write_bytes(Path(files[0]).read_bytes())
    typed = [*UNIFORM, str(odd), *files[1:], "--output", "out"]
    assert merge(*typed).code == 0
    card = Path("out/README.md").read_text()
    assert shlex.join(["merge", *typed]) in card
    header = json.loads(Path("out/events.jsonl").read_text().splitlines()[0])
    assert shlex.split(header["request"]["command"]) == ["merge", *typed]
    assert header["request"]["models"] == [str(odd), *files[1:]]


@pytest.mark.parametrize("name", ["new\nline", "tab\t`id`", "bad\udcff", "a'\\\x1b b", "$HOME *?!"])
def test_bash_gives_back_the_words_of_a_recorded_command(name: str) -> None:
    line = command_line(["run", name, "x"])
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f"merge() {{ printf '%s\\0' \"$@\"; }}; {line}"], capture_output=True).stdout
    assert said.decode("utf-8", "surrogateescape").split("\0")[:-1] == ["run", name, "x"]


def test_a_plug_ins_name_is_told_its_flag(merge: Merge, files: list[str], tmp_path: Path) -> None:
    assert "greedy is no file but a strategy: --strategy greedy" in merge("run", "greedy", *files).err
    assert "no such checkpoint: gredy; or did you mean the strategy: --strategy greedy?" in merge("run", "gredy").err
    assert "--strategies greedy" in merge("benchmark", "greedy").err
    assert "is no file but a task: --task digits" in merge("check", "digits").err
    (tmp_path / "greedy").mkdir()
    assert "no models match" in merge(*UNIFORM, "greedy").err


@pytest.mark.parametrize(
    "words",
    [["run", ""], ["run", "--models", ""], ["run", "m.pt", "--base="], ["evaluate", "m.pt", ""], ["check", ""]],
    ids=" ".join,
)
def test_an_empty_name_is_not_the_working_folder(merge: Merge, words: list[str]) -> None:
    ran = merge(*words)
    assert (ran.code, "an empty name is no model" in ran.err) == (2, True)


def test_a_description_alone_is_told_its_flag(merge: Merge, tmp_path: Path) -> None:
    assert "x.toml is no model: --task x.toml" in merge("run", "x.toml").err


def test_a_file_that_looks_like_a_flag(merge: Merge, tmp_path: Path) -> None:
    (tmp_path / "-model.pth").touch()
    ran = merge("run", "-model.pth")
    assert (ran.code, "begins with - is written ./-model.pth" in ran.err) == (2, True)
    assert "is written" not in merge("run", "-x").err


def test_the_hint_to_rebuild_can_be_typed(merge: Merge, files: list[str]) -> None:
    said = merge(*UNIFORM, *files, "--output", "my out").out
    (hint,) = [line.partition("rebuild it")[2] for line in said.splitlines() if "rebuild it" in line]
    assert shlex.split(hint)[:3] == ["merge", "apply", "my out/recipe.json"]


def test_other_commands_take_them(merge: Merge, files: list[str]) -> None:
    task = ["--task", TASK, "--partitioner", "layer"]
    for command in (["check", *files], ["inspect", *files, "--barriers", "none"]):
        ran = merge(*command, *task, "--json")
        assert ran.code == 0, ran.err
        assert "model_2" in ran.out
    ran = merge("benchmark", *files, *task, "--strategies", "best,uniform", "--output", "bench", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["pool"] == ["model_0", "model_1", "model_2"]
    merge(*UNIFORM, *files, "--output", "out")
    ran = merge("apply", "out", *files, "--output", "again.safetensors")
    assert ran.code == 0, ran.err
    assert Path("again.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


def test_a_run_that_goes_on_has_the_models_it_had(merge: Merge, files: list[str]) -> None:
    merge(*UNIFORM, *files, "--output", "out")
    same = merge("run", *files, "--resume", "out")
    assert same.code == 0, same.err
    other = merge("run", *files[:2], "--resume", "out")
    assert other.code == 2
    assert "--models was" in other.err
    assert "leave that out to go on" in other.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--base", "p/b1.pt", "p/b2.pt"], "--base takes one model, and p/b2.pt stands behind"),
        (["--base", "r1/b.pt", "r2/b.pt"], "--base takes one model, and r2/b.pt stands behind"),
        (["--task", "x1.toml", "x2.toml"], "x2.toml is no model; --task takes one file"),
        (["--plugin", "x1.py", "x2.py"], "x2.py is no model; --plugin takes one file"),
    ],
)
def test_a_pattern_that_the_shell_has_expanded_is_told(merge: Merge, typed: list[str], said: str) -> None:
    ran = merge("run", *typed, "--strategy", "uniform")
    assert ran.code == 2
    assert said in ran.err
    assert "quote the pattern" in ran.err


def test_a_task_file_that_is_missing_is_told_in_words(merge: Merge) -> None:
    ran = merge("run", "--task", "nowhere.toml")
    assert (ran.code, ran.err) == (2, "error: nowhere.toml: No such file or directory\n")


def test_three_ends_of_a_line_are_told(merge: Merge, files: list[str]) -> None:
    ran = merge("inspect", "--interpolate", *files)
    assert ran.code == 2
    assert "--interpolate takes two models" in ran.err


def test_a_base_elsewhere_may_stand_before_the_models(merge: Merge, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").write_bytes(Path(files[2]).read_bytes())
    ran = merge(*UNIFORM, "--base", "base.safetensors", *files[:2], "--output", "out")
    assert ran.code == 0, ran.err
    assert _pool() == ["model_0", "model_1"]


def test_surplus_names_hint_at_the_pattern(merge: Merge) -> None:
    ran = merge("finetune", "--output", "pool", "--base", "a.pt", "b.pt")
    assert ran.code == 2
    assert "quote the pattern" in ran.err


def test_help_and_an_unknown_command(merge: Merge) -> None:
    assert merge("help", "run").out == merge("run", "--help").out
    assert "Commands:" in merge("help").out
    assert merge("help", "runn").code == 2
    ran = merge("runn")
    assert ran.code == 2
    assert "did you mean 'run" in ran.err

"""What is typed goes over merge.toml, merge.toml over the declared default: for every setting, whatever its kind."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merging.cli.asking.options import Asking, FromFile
from merging.cli.asking.request import requested, settings_of
from merging.cli.run import command as run_command
from merging.errors import MergingError
from merging.running.settings import DECLARED, Settings
from tests.conftest import Merge

NAMES = sorted(DECLARED)
FLAGS = {option.name: option for option in run_command.params if isinstance(option, FromFile)}
WORDS = {"tokenizer_source": ["union", "base", "first"], "max_shard_size": ["5GB", "500MiB"], "device": ["cpu", "cuda"]}
WORDS |= {"workers": ["ray", "gpu", "2@ray:auto"], "sinks": ["none"]}
if find_spec("tensorboard"):  # what is not installed is refused by name
    WORDS["sinks"] += ["tensorboard", "tensorboard:folder=a b"]


def asked(*arguments: str) -> dict[str, Any]:
    """The request of ``merge run`` with these arguments, without running it."""
    with run_command.make_context("run", ["--models", "none.pt", *arguments]) as context:
        return requested(context.params)


@st.composite
def said(draw: st.DrawFn, name: str) -> tuple[Any, list[str], Any]:
    """A value for merge.toml, and arguments with the value that they stand for, of one setting."""
    declared, flag = DECLARED[name], FLAGS[name]
    kinds = (declared.type, *get_args(declared.type))
    if bool in kinds:
        in_file = draw(st.booleans())
        switches = [(flag.opts[0], flag.flag_value if not flag.secondary_opts else True)]
        switches += [(text, False) for text in flag.secondary_opts]
        text, value = draw(st.sampled_from(switches))
        return in_file, [text], value
    if get_origin(declared.type) is tuple:
        words = st.sampled_from(WORDS[name]) if name in WORDS else st.text("abc.*", min_size=1)
        texts = st.lists(words, min_size=1, max_size=3, unique=True)
        values = draw(texts)
        return draw(texts), [part for text in values for part in (flag.opts[0], text)], values
    spec = declared.spec
    if int in kinds and str not in kinds:
        numbers: st.SearchStrategy[Any] = st.integers(int(spec.low or 0), int(spec.high or 99))
    elif float in kinds:
        numbers = st.floats(0.25, 0.75)
    else:
        numbers = st.sampled_from(WORDS.get(name) or spec.choices)
    value = draw(numbers)
    return draw(numbers), [flag.opts[0], str(value)], value


def test_every_setting_has_one_flag() -> None:
    assert set(NAMES) <= set(FLAGS)
    assert isinstance(run_command, Asking)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flag_over_file_over_default(
    name: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    in_file, arguments, typed = data.draw(said(name))
    toml, declared = Path("merge.toml"), DECLARED[name]
    toml.unlink(missing_ok=True)
    default = list(declared.default) if isinstance(declared.default, tuple) else declared.default
    assert asked()[name] == (None if declared.setting.silent else default)
    assert settings_of(asked()).plain()[name] == default
    assert asked(*arguments)[name] == typed
    toml.write_text(f"[run]\n{name} = {json.dumps(in_file)}\n")
    assert asked()[name] == in_file
    plain = Settings.of({name: in_file}).plain()[name] if name == "sinks" else in_file  # names become plug-ins
    assert settings_of(asked()).plain()[name] == plain
    assert asked(*arguments)[name] == typed
    toml.rename("elsewhere.toml")
    toml.write_text("[run]\nstrategi = 1\n")  # nobody reads it
    assert asked("--task", "elsewhere.toml", "--models", "x.pt")[name] == in_file


def test_the_source_of_a_value_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("merge.toml").write_text("[run]\nbudget = 3\nbaselines = true\nfreeze = ['a']\n")
    with run_command.make_context("run", ["--freeze", "b", "--no-tests"]) as context:
        source = {
            name: context.get_parameter_source(name) for name in ("budget", "baselines", "freeze", "tests", "seed")
        }
    kind = click.core.ParameterSource
    assert source == {
        "budget": kind.DEFAULT_MAP,
        "baselines": kind.DEFAULT_MAP,
        "freeze": kind.COMMANDLINE,
        "tests": kind.COMMANDLINE,
        "seed": kind.DEFAULT,
    }


def test_help_is_shown_beside_a_broken_file(merge: Merge) -> None:
    Path("merge.toml").write_text("[run\n")
    for name in ("run", "check", "benchmark", "inspect", "evaluate", "finetune"):
        assert merge(name, "--help").code == 0


def test_a_command_reads_what_it_has_no_flag_for(merge: Merge, pool_folder: Path) -> None:
    """A list, a switch of its own that has the name of a setting, and options that mean nothing to a line."""
    models = sorted(map(str, pool_folder.glob("model_*.safetensors")))
    Path("merge.toml").write_text("[run]\nfreeze = ['nothing-like-this']\ntests = true\npartitioner = 'layer'\n")
    refused = merge("inspect", "--models", *[models[0]], "--barriers", "none")
    assert refused.code == 2
    assert "nothing-like-this" in refused.err
    Path("merge.toml").write_text("[run]\ntests = true\npartitioner = 'layer'\n")
    ran = merge("inspect", "--models", models[0], "--barriers", "none", "--json")
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["components"]) > 1
    ran = merge("inspect", "--models", models[0], "--interpolate", *models[:2])
    assert "does nothing for --interpolate" not in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget = 0", "run.budget"),
        ("threads = 4000", "run.threads"),
        ("certify_split = 2.5", "run.certify_split"),
        ("precision = 'fp23'", "run.precision"),
        ("format = 'onnx'", "run.format"),
        ("freeze = 'head'", "run.freeze"),
        ("tests = 'no'", "run.tests"),
        ("seed = 1.5", "run.seed"),
        ("baseline = false", "did you mean 'baselines'?"),
    ],
)
def test_a_wrong_value_in_the_file_names_file_and_key(merge: Merge, text: str, said: str) -> None:
    Path("merge.toml").write_text(f"[run]\n{text}\n")
    ran = merge("run", "--models", "x.pt")
    assert ran.code == 2
    assert "merge.toml" in ran.err
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    Path("merge.toml").rename("task.toml")
    ran = merge("check", "--models", "x.pt", "--task", "task.toml")
    assert ran.code == 2
    assert "task.toml" in ran.err


@pytest.mark.parametrize("order", [("inner=greedy", "inner.order=random"), ("inner.order=random", "inner=greedy")])
def test_an_inner_strategy_that_is_typed_takes_the_files_away(merge: Merge, order: tuple[str, str]) -> None:
    """Of a run and of a benchmark alike, in whatever order it is typed."""
    from merging.cli.asking.plugin_options import over, parse_options

    own = {"inner": "uniform", "inner.lost": 1, "alpha": 0.5}
    for name in ("strategy", "wise-ft"):
        typed = parse_options([f"{name}.{text}" for text in order], (name,))
        assert over(own, typed[name]) == {"alpha": 0.5, "inner": "greedy", "inner.order": "random"}
    assert parse_options(["strategy.a=1", "strategy.a=2"]) == {"strategy": {"a": ["1", "2"]}}
    models = ("--models", "none.pt", "--task", "digits", "--output", "x")
    listed = [part for text in order for part in ("-o", f"wise-ft.{text}")]
    ran = merge("benchmark", *models, "--strategies", "wise-ft", *listed)
    assert "no models match" in ran.err  # the options were understood


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('precision = "fp16"', "unknown value for run.precision of merge.toml: 'fp16'; did you mean 'bf16'?"),
        ('dtype = "bf16"', "unknown value for run.dtype of merge.toml: 'bf16'; did you mean 'bfloat16'?"),
        ("budget = 0", "run.budget of merge.toml is 0, but must be at least 1"),
        ("certify_split = nan", "run.certify_split of merge.toml is nan, but must be a finite number"),
        ('threads = "2"', "merge.toml: run.threads: Input should be a valid integer"),
    ],
)
def test_a_wrong_value_in_the_file_is_told_as_one_of_a_flag(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("merge.toml").write_text(f"[run]\n{line}\n")
    with pytest.raises(MergingError, match=re.escape(said)):
        asked()

"""Settings: declared once, checked when they are made, given as values or keywords, and found everywhere at once."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

import merging
from merging.benchmarking.design import NOT_TAKEN
from merging.errors import MergingError, OptionError, UnknownNameError
from merging.looking.check import check
from merging.plugins.options import Option
from merging.plugins.watcher import Watcher
from merging.running.given import Destination, Origin, Parts
from merging.running.plan import plan
from merging.running.settings import DECLARED, GROUPS, Passes, Rules, Search, Settings
from merging.storage.journal import FILE, read_header
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK

ROOT = Path(__file__).parents[2]
FUNCTIONS = (merging.merge, merging.benchmark, plan, check)
LOOKING = {
    merging.evaluate: {"device", "threads", "remember", "verify"},
    merging.interpolate: {"device", "threads", "remember", "verify"},
    merging.inspect_pool: {"freeze", "device", "threads", "remember", "verify"},
    merging.finetune: {"seed", "device", "threads"},
}
"""What takes a few settings alone → which."""


def values(declared: Option) -> st.SearchStrategy[Any]:
    """Right values of a setting, as its declaration has them."""
    spec, kinds = declared.spec, (declared.type, *getattr(declared.type, "__args__", ()))
    if declared.name == "max_shard_size":
        return st.sampled_from([None, "5GB", "500MiB"])
    if declared.name == "workers":
        return st.sampled_from([None, 1, 4, "ray", "2@ray:auto", "ray:10.0.0.1:6379"])
    if declared.name == "sinks":
        most = None if find_spec("tensorboard") else 0  # what is not installed is refused by name
        folders = st.lists(st.none() | st.text("ab", min_size=1), unique=True, max_size=most)
        return folders.map(lambda found: tuple({"name": "tensorboard", "folder": folder} for folder in found))
    if spec.choices:
        return st.sampled_from(spec.choices)
    if bool in kinds:
        return st.booleans()
    if int in kinds:
        return st.integers(int(spec.low or 0), int(spec.high or 1000))
    if float in kinds:
        return st.floats(0.1, 0.9)
    return st.lists(st.text("ab.", min_size=1)).map(tuple) if declared.default == () else st.text("ab")


TOLD = st.fixed_dictionaries({}, optional={name: values(declared) for name, declared in DECLARED.items()}).filter(
    lambda told: (
        (told.get("format") != "pt" or not {"accumulate", "max_shard_size"} & set(told))
        and (told.get("written_as") != "adapter" or (told.get("format") != "pt" and not told.get("max_shard_size")))
    )
)


@drawn(told=TOLD)
def test_settings_by_name_are_the_values(told: dict[str, Any]) -> None:
    made = Settings.of(told)
    assert made.plain() == Settings().plain() | {k: list(v) if v.__class__ is tuple else v for k, v in told.items()}
    for group, kind in GROUPS.items():
        own = {name: value for name, value in told.items() if name in kind.__dataclass_fields__}
        assert getattr(made, group) == kind(**own)
    assert Settings().changed(told) == made
    assert Settings.of(made.plain()) == made
    assert list(made.header()) == [name for name in made.plain() if DECLARED[name].setting.header]


OUTSIDE = [
    pytest.param(name, bound, id=f"{name}={bound:g}")
    for name, declared in DECLARED.items()
    for bound in (
        *([] if declared.spec.low is None else [declared.spec.low - 1]),
        *([] if declared.spec.high is None else [declared.spec.high + 1]),
    )
]


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_a_number_outside_its_range_is_refused_in_one_line(name: str, value: float) -> None:
    assert len(OUTSIDE) >= 6
    with pytest.raises(OptionError, match=rf"^`{name}` is {value:g}.*, but must be (at least|between) ") as caught:
        Settings.of({name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"precision": "fp23"}, "did you mean 'fp32'"),
        ({"format": "safetensor"}, "did you mean 'safetensors'"),
        ({"dtype": "bfloat61"}, "did you mean 'bfloat16'"),
        ({"accumulate": "float46"}, "did you mean 'float"),
        ({"budget": "many"}, "`budget` is 'many', but must be a valid integer"),
        ({"tests": "perhaps"}, "`tests` is 'perhaps', but must be a valid boolean"),
        ({"baselines": 7}, "`baselines` is 7"),
        ({"freeze": [1]}, "`freeze` is "),
        ({"max_shard_size": "much"}, "much"),
        ({"workers": "gppu"}, "did you mean 'gpu'?"),
        ({"workers": 0}, "`workers` is 0, but their number must be between 1 and"),
        ({"workers": "gpu", "device": "cpu"}, "`workers` is gpu, but `device` is cpu"),
        ({"certify_split": 0}, "`certify_split` is 0; it is the share"),
        ({"format": "pt", "accumulate": "float32"}, "for safetensors"),
        ({"bugdet": 3}, "unknown setting 'bugdet'; did you mean 'budget'?"),
    ],
)
def test_what_is_wrong_is_said_when_settings_are_made(told: dict[str, Any], said: str) -> None:
    with pytest.raises(MergingError, match=re.escape(said)):
        Settings.of(told)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_take_a_handful_and_tell_every_keyword(function: Any) -> None:
    assert function.__code__.co_argcount + function.__code__.co_kwonlyargcount + 1 <= 8
    signature = inspect.signature(function)
    told = {name for name in DECLARED if name not in NOT_TAKEN or function is not merging.benchmark}
    assert told <= set(signature.parameters)
    if function is merging.benchmark:
        assert not {*NOT_TAKEN} & set(signature.parameters)
    lines = function.__doc__.partition("Keywords:")[2]
    for name in told:
        assert signature.parameters[name].default == DECLARED[name].default
        assert f"    {name}: {DECLARED[name].spec.help}" in lines


@pytest.mark.parametrize(
    ("function", "keyword", "nearest"),
    [
        (merging.merge, "bugdet", "budget"),
        (merging.merge, "patitioner", "partitioner"),
        (merging.merge, "ouput", "output"),
        (merging.merge, "should_end", "should_stop"),
        (merging.benchmark, "seed", "seeds"),
        (merging.benchmark, "partitioner", "partitioners"),
        (plan, "freze", "freeze"),
        (check, "tsk", "task"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(function: Any, keyword: str, nearest: str, tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path)
    said = f"unknown argument of {function.__name__} '{keyword}'; did you mean '{nearest}'?"
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        function([] if function is check else pool, merging.Uniform(), **{keyword: 1})


@pytest.mark.parametrize("function", LOOKING, ids=lambda function: function.__name__)
def test_what_takes_a_few_settings_tells_these_and_names_the_nearest(function: Any, tmp_path: Path) -> None:
    told = {name: each for name, each in inspect.signature(function).parameters.items() if name in DECLARED}
    told.pop("tests", None)  # of a line: its own, and off unless it is asked for
    assert told.keys() == LOOKING[function]
    lines = function.__doc__.partition("Keywords:")[2]
    for name, parameter in told.items():
        assert parameter.default == DECLARED[name].default
        assert f"    {name}: " in lines
    first = (tiny_task, tmp_path, merging.Sweep({})) if function is merging.finetune else (tiny_pool(tmp_path), None)
    more: dict[str, Any] = {"models": 1} if function is merging.finetune else {}
    for wrong, nearest in (("devise", "device"), ("precision", ""), ("exact_savings", ""), ("should_end", "should_s")):
        said = f"unknown argument of {function.__name__} '{wrong}'; " + (f"did you mean '{nearest}" if nearest else "")
        with pytest.raises(UnknownNameError, match=re.escape(said)):
            function(*first, **more, **{wrong: 1})
    with pytest.raises(OptionError, match="`threads` is 0, but must be between"):
        function(*first, **more, threads=0)


def test_values_and_keywords_are_the_same_look(tmp_path: Path) -> None:
    pool, task = tiny_pool(tmp_path), tiny_task()
    told: list[str] = []

    class Heard(merging.Silent):
        def stage(self, text: str, total: int | None = None) -> None:
            told.append(text)

    settings, watcher = Settings.of({"device": "cpu", "threads": 1, "freeze": ("fc1",)}), Watcher(progress=Heard())
    first = merging.inspect_pool(
        pool, merging.Layer(), parts=Parts(task=task), settings=settings, watcher=watcher, barriers="all"
    )
    second = merging.inspect_pool(
        pool, merging.Layer(), task=task, device="cpu", threads=1, freeze=["fc1"], barriers="all"
    )
    assert first.to_json() == second.to_json()
    assert any(component.frozen for component in first.partition.components)
    scored = merging.evaluate(pool.checkpoints[0], task, settings=settings, watcher=watcher)
    again = merging.evaluate(pool.checkpoints[0], task, device="cpu", threads=1)
    assert {name: found.score for name, found in scored.items()} == {name: found.score for name, found in again.items()}
    two = merging.ModelPool(pool.checkpoints[:2])
    assert merging.interpolate(two, task, settings=settings, watcher=watcher, steps=2) == merging.interpolate(
        two, task, device="cpu", threads=1, steps=2
    )
    assert {"scoring the models", "scoring", "along the line"} <= set(told)
    stopped = Watcher(should_stop=lambda: True)
    for look in (
        lambda: merging.evaluate(pool.checkpoints[0], task, watcher=stopped),
        lambda: merging.interpolate(two, task, watcher=stopped),
        lambda: merging.inspect_pool(pool, merging.Layer(), task=task, watcher=stopped),
    ):
        with pytest.raises(merging.Stopped):
            look()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"settings": {"seed": 3}}, "merge was given a dict of length 1 where a Settings belongs"),
        ({"settings": Search(seed=3)}, "merge was given a Search where a Settings belongs"),
        ({"parts": None}, "merge was given None where a Parts belongs"),
    ],
)
def test_a_value_of_another_kind_is_named(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        merging.merge(tiny_pool(tmp_path), merging.Uniform(), **values)


def test_a_benchmark_refuses_values_that_it_would_not_read(tmp_path: Path) -> None:
    pool, task = tiny_pool(tmp_path), tiny_task()
    for settings, said in (
        (Settings(search=Search(seed=3)), "no `seed`; give `seeds`"),
        (Settings(rules=Rules(certify_split=0.3)), "no `certify_split`: leave it out"),
    ):
        with pytest.raises(OptionError, match=said):
            merging.benchmark(pool, [merging.Uniform()], task=task, settings=settings)


def test_nobody_may_listen(tmp_path: Path) -> None:
    merging.merge(tiny_pool(tmp_path), merging.Uniform(), progress=None)


def test_fine_tuning_takes_values_and_names_the_nearest_keyword(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown argument of finetune 'regimee'; did you mean 'regime'\?"):
        merging.finetune(tiny_task, tmp_path, merging.Sweep({}), models=1, regimee=3)
    assert {"base", "jobs", "should_stop"} < set(inspect.signature(merging.finetune).parameters)
    assert "    linear_probe: Epochs in which the head alone" in str(merging.finetune.__doc__)


def test_values_and_keywords_are_the_same_run(tmp_path: Path) -> None:
    pool, task = tiny_pool(tmp_path), tiny_task()
    keywords = merging.merge(
        pool,
        merging.Greedy(),
        task=task,
        partitioner=merging.Layer(),
        seed=3,
        freeze=["fc1"],
        tests=False,
        dtype="bfloat16",
        output=tmp_path / "keywords",
    )
    values = merging.merge(
        pool,
        merging.Greedy(),
        parts=Parts(task=task, partitioner=merging.Layer()),
        settings=Settings(search=Search(seed=3, freeze=("fc1",)), rules=Rules(tests=False)),
        destination=Destination(output=tmp_path / "values"),
        watcher=Watcher(),
        origin=Origin(command="mine"),
        dtype="bfloat16",  # a keyword goes over a value
    )
    assert keywords.report.content_hash == values.report.content_hash
    first, second = (read_header(tmp_path / name / FILE) for name in ("keywords", "values"))
    assert first == second
    assert (first["seed"], first["freeze"], first["tests"]) == (3, ["fc1"], False)
    assert values.writing.dtype == "bfloat16"


def test_settings_that_nobody_reads_are_checked_all_the_same(tmp_path: Path) -> None:
    """Before any work, whatever the strategy needs."""
    with pytest.raises(OptionError, match="`cache_memory` is -1"):
        merging.merge(tiny_pool(tmp_path), merging.Uniform(), cache_memory=-1)
    with pytest.raises(OptionError, match="`threads` is 0"):
        Passes(threads=0)


ADDED = """    patience: int | None = option(
        None, "Rounds without a better score.", low=1, high=99, setting=Setting(metavar="ROUNDS", header=True)
    )
    gentle: bool = option(True, "Be gentle.", setting=Setting(switch="off", said="Be rough.", changes=True))
"""
PROGRAM = """
import importlib.util, json, pathlib, sys
from click.testing import CliRunner
from merging.cli.run import command
from merging.cli.check import command as check
import merging

def run(*arguments):
    from merging.errors import MergingError
    ran = CliRunner().invoke(command, arguments)
    error = ran.exception if isinstance(ran.exception, (MergingError, SystemExit, type(None))) else None
    assert ran.exception is error, ran.exception
    return ran.output + (str(error) if isinstance(error, MergingError) else "")

found = {"help": run("--help"), "check": CliRunner().invoke(check, ["--help"]).output}
toml = pathlib.Path("merge.toml")
base = ["--models", sys.argv[1], "--strategy", "uniform", "--task", sys.argv[2], "--no-baselines"]
def header(name):
    return json.loads((pathlib.Path(name) / "events.jsonl").read_text().splitlines()[0])
toml.write_text("[run]\\npatience = 7\\ngentle = false\\n")
run(*base, "--output", "file")
found["file"] = header("file")
run(*base, "--output", "flag", "--patience", "8", "--no-gentle")
found["flag"] = header("flag")
toml.write_text("[run]\\npatienc = 7\\n")
found["wrong"] = run(*base, "--output", "none")
toml.write_text("[run]\\npatience = 700\\n")
found["range"] = run(*base, "--output", "none")
toml.unlink()
run(*base, "--output", "default")
found["default"] = header("default")
found["resume"] = run("--resume", "file", "--trust-code", "--patience", "9")
found["fine"] = run("--resume", "file", "--trust-code", "--no-gentle", "--patience", "7", "--dry-run")
found["keyword"] = merging.merge.__doc__
spec = importlib.util.spec_from_file_location("build_reference", sys.argv[3])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
found["docs"] = build.settings() + build.run_keys() + build.command_line()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_new_setting_is_declared_in_one_file_and_found_everywhere(pool_folder: Path, tmp_path: Path) -> None:
    """The package with one file changed: a number and a switch, added to the values of a search."""
    package, file = tmp_path / "changed" / "merging", Path(merging.__file__).parent / "running/settings.py"
    (package / "running").mkdir(parents=True)
    for folder, place in ((file.parents[1], package), (file.parent, package / "running")):
        for entry in folder.iterdir():
            if entry.name not in ("running", "__pycache__", file.name):
                (place / entry.name).symlink_to(entry.resolve())
    text = file.read_text()
    mark = "    seed: int = option(\n"
    assert text.count(mark) == 1
    (package / "running" / file.name).write_text(text.replace(mark, ADDED + mark))
    given = [str(pool_folder / "model_*.safetensors"), TASK, str(ROOT / "docs/build_reference.py")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given],
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert re.search(r"--patience ROUNDS +Rounds without a better score\.", found["help"])
    assert re.search(r"--no-gentle +Be rough\.", found["help"])
    assert "--patience ROUNDS" in found["check"]
    for where, number, gentle in (("file", 7, False), ("flag", 8, False), ("default", None, True)):
        assert found[where]["patience"] == number
        assert "gentle" not in found[where]
        request = found[where]["request"]
        assert (request["patience"], request["gentle"]) == (number, gentle)
    assert "did you mean 'patience'?" in found["wrong"]
    assert "run.patience of merge.toml" in found["range"]
    assert "--patience was 7, is 9" in found["resume"]
    assert "Everything fits" in found["fine"]
    assert "    patience: Rounds without a better score." in found["keyword"]
    assert "| `patience` | Rounds without a better score. | `None` | between 1 and 99 | same |" in found["docs"]
    assert "| `gentle` | Be gentle. | `True` | | may change |" in found["docs"]
    assert re.search(r"--patience ROUNDS +Rounds", found["docs"])

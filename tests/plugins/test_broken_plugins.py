"""Plug-ins of every kind that fail or return nonsense: one line with their name, the error, their file and line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import merging
from merging import ManifoldMix, benchmark
from merging.errors import MergingError, StrategyError
from merging.plugins.discovery import load_file, load_installed
from merging.plugins.options import build
from merging.plugins.registry import KINDS
from merging.plugins.user_code import PluginError, kind_of, running
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK as TINY
from tests.conftest import Merge

HEAD = """
from dataclasses import dataclass, replace
import merging, torch
from merging.plugins.registry import objectives, optimizers, partitioners, strategies
from merging.testing import tiny_task

class Own(Exception):
    pass

def deep():
    return [{failing} for _ in range(1)]  # here

"""
PLACES = {
    "mix": ("strategy 'broken'", "strategies", "merging.MixStrategy", "def mix(self, problem): return {body}"),
    "combine": (
        "strategy 'broken'",
        "strategies",
        "merging.MixStrategy",
        "def mix(self, problem): return problem.weights(self, lambda name, models, base: {body})",
    ),
    "trial": (
        "strategy 'broken'",
        "strategies",
        "merging.MixStrategy",
        """needs = frozenset({{"model", "objective"}})
    def mix(self, problem):
        from numpy import ones
        problem.search.maximize(lambda x: {body}, lower=ones(1) * 0, upper=ones(1), start=ones(1), budget=5)""",
    ),
    "requires": (
        "strategy 'broken'",
        "strategies",
        "merging.MixStrategy",
        "def mix(self, problem): return problem.single(0)\n    def requires(self): return {body}",
    ),
    "split": (
        "partitioner 'broken'",
        "partitioners",
        "merging.Partitioner",
        "def split(self, t, m=None): return {body}",
    ),
    "terms": (
        "objective 'broken'",
        "objectives",
        "merging.Objective",
        "def terms(self, logits, labels): return {body}\n    def reduce(self, terms): return 0.5",
    ),
    "reduce": (
        "objective 'broken'",
        "objectives",
        "merging.Objective",
        "def terms(self, logits, labels): return logits[:, 0]\n    def reduce(self, terms): return {body}",
    ),
    "measure": (
        "objective 'broken'",
        "objectives",
        "merging.WholeModelObjective",
        "def measure(self, model, split): return {body}",
    ),
    "maximize": ("optimizer 'broken'", "optimizers", "merging.Optimizer", "def maximize(self, search): return {body}"),
}
TASK = {
    "build": ("build of task 'blobs'", "def task(): return replace(tiny_task(), build=lambda pool: {body})"),
    "prepare": ("prepare of task 'blobs'", "def task(): return replace(tiny_task(), prepare=lambda batch: {body})"),
}
EVERY = [*PLACES, *TASK]
FAILURES = {
    "(_ for _ in ()).throw(ValueError('boom'))": "ValueError: boom",
    "1 / 0": "ZeroDivisionError: division by zero",
    "{}['missing']": "KeyError: 'missing'",
    "(_ for _ in ()).throw(Own())": "Own",
    "(_ for _ in ()).throw(Own('first\\nsecond'))": "Own: first",
    "torch.ones(2) @ torch.ones(3)": "RuntimeError: ",
    "open('/nowhere/at/all')": "FileNotFoundError: ",
    "__import__('json').loads('{')": "JSONDecodeError: ",
    "(_ for _ in ()).throw(ValueError(str(torch.rand(40, 40))))": "ValueError: tensor(",
}
NONSENSE = {
    "None": "None",
    "[1, 2, 3]": "a list of length 3",
    "{'a': 1}": "a dict of length 1",
    "torch.rand(9, 9, 9, 9)": "a Tensor of shape [9, 9, 9, 9] and dtype float32",
    "merging.Recipe": "the class Recipe",
    "deep": "a function",
    "'text'": "a str of length 4",
}


def written(folder: Path, place: str, body: str, failing: str = "0") -> Path:
    """A file with a plug-in (or a task) in which one method gives ``body``."""
    if place in TASK:
        code = TASK[place][1].format(body=body)
    else:
        _, registry, base, method = PLACES[place]
        code = f"@{registry}.register('broken')\n@dataclass(frozen=True)\nclass Broken({base}):\n    "
        code += method.format(body=body)
    file = folder / f"broken_{place}.py"
    file.write_text(HEAD.replace("{failing}", failing) + code + "\n")
    return file


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    """The names that a file took are free again."""
    load_installed()  # once a process: what it enters must not be taken away
    before = {kind: dict(registry._classes) for kind, registry in KINDS.items()}
    yield
    for kind, registry in KINDS.items():
        registry._classes.clear()
        registry._classes.update(before[kind])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=3)


def run(file: Path, pool: ModelPool) -> None:
    """A run in which the file's plug-in takes its part."""
    found: dict[str, Any] = {}
    if "def task()" in file.read_text():
        exec(compile(file.read_text(), file, "exec"), space := {"__name__": f"module_of_{file.stem}"})  # noqa: S102
        task = space["task"]()  # type: ignore[operator]
    else:
        load_file(file)
        task = tiny_task()
        found = {kind: registry["broken"]() for kind, registry in KINDS.items() if "broken" in registry}
    strategy = found.pop("strategy", ManifoldMix(tau=0.0, barrier=None, budget=5))
    merging.merge(pool, strategy, task=task, device="cpu", baselines=False, tests=False, **found)


def check_line(said: str) -> None:
    assert "\n" not in said
    assert len(said) < 700


@pytest.mark.parametrize(("place", "failing"), list(itertools.product(EVERY, FAILURES)))
def test_what_is_raised_is_said_with_name_file_and_line(
    place: str, failing: str, pool: ModelPool, tmp_path: Path
) -> None:
    file = written(tmp_path, place, "deep()", failing)
    with pytest.raises(MergingError) as caught:
        run(file, pool)
    said = str(caught.value)
    who = PLACES[place][0] if place in PLACES else TASK[place][0]
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "# here" in text)
    check_line(said)
    assert said.startswith(f"{who} failed")
    assert FAILURES[failing] in said
    assert said.endswith(f"(at {file}:{line})")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("place", "given"), list(itertools.product(EVERY, NONSENSE)))
def test_what_is_returned_is_told_by_type(place: str, given: str, pool: ModelPool, tmp_path: Path) -> None:
    file = written(tmp_path, place, given)
    with pytest.raises(MergingError) as caught:
        run(file, pool)
    said = str(caught.value)
    check_line(said)
    assert "broken" in said or "blobs" in said
    if (place, given) == ("combine", "torch.rand(9, 9, 9, 9)"):
        assert "returned shape [9, 9, 9, 9] for tensor" in said
    else:
        assert NONSENSE[given] in said
    assert "tensor([" not in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("logits[:-1, 0]", "a Tensor of shape [119] and dtype float32 for 120 samples"),
        ("logits.sum()", "a Tensor of shape [] and dtype float32"),
        ("logits[:, :, None]", "a Tensor of shape [120, 3, 1] and dtype float32"),
        ("logits[:, 0].to(torch.complex64)", "dtype complex64"),
        ("logits[:, 0].numpy()", "a ndarray of shape [120] and dtype float32"),
    ],
)
def test_terms_of_another_shape_or_kind(body: str, said: str, pool: ModelPool, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="objective 'broken': terms returned") as caught:
        run(written(tmp_path, "terms", body), pool)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("problem.evaluate([1, 2])", "TypeError: evaluate takes a Recipe, Weights or Ensemble, not a list of length 2"),
        ("problem.evaluate(0.5)", "not a float"),
        ("problem.evaluate(problem)", "not a MergeProblem"),
        ("problem.weights(lambda *a: 1, self)", "weights takes the strategy and a function of one tensor"),
        ("problem.mean([99])", "IndexError"),
        ("problem.evalute(1)", "problem has no attribute 'evalute'"),
        ("problem.decide(score=torch.rand(50, 50))", "cannot be"),
        (
            "merging.Recipe(problem.pool.ingredients, problem.partition, torch.zeros(1, 1).numpy())",
            "coefficients have shape",
        ),
    ],
)
def test_what_is_asked_for_wrongly_names_the_line_that_asks(
    body: str, said: str, pool: ModelPool, tmp_path: Path
) -> None:
    file = written(tmp_path, "mix", body)
    with pytest.raises(MergingError) as caught:
        run(file, pool)
    check_line(str(caught.value))
    assert said.lower() in str(caught.value).lower()
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "def mix" in text)
    assert "strategy 'broken'" in str(caught.value)
    assert f"{file}:{line}" in str(caught.value)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ('["model"]', "needs of strategy 'broken' is a list of length 1, not a frozenset of words"),
        ('"model"', "needs of strategy 'broken' is a str of length 5"),
        ('frozenset({"objectve"})', "unknown need of strategy 'broken': 'objectve'; did you mean 'objective'?"),
    ],
)
def test_needs_that_cannot_be(needs: str, said: str, pool: ModelPool, tmp_path: Path) -> None:
    file = written(tmp_path, "mix", "problem.single(0)")
    file.write_text(file.read_text() + f"\n    needs = {needs}\n")
    with pytest.raises(MergingError) as caught:
        run(file, pool)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "plug-in 'unmade' failed while it was made: TypeError: Can't instantiate abstract class Unmade"),
        ("mix = merging.Uniform.mix\n    def __post_init__(self): 1 / 0", "ZeroDivisionError: division by zero (at "),
        ("mix = merging.Uniform.mix\n    k: int = merging.option(9, 'k', high=3)", "option 'k' of 'unmade' is 9"),
    ],
)
def test_a_plug_in_that_cannot_be_made(body: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "unmade.py"
    code = f"@strategies.register('unmade')\n@dataclass(frozen=True)\nclass Unmade(merging.MixStrategy):\n    {body}\n"
    file.write_text(HEAD.replace("{failing}", "0") + code)
    load_file(file)
    with pytest.raises(MergingError) as caught:
        build(KINDS["strategy"]["unmade"], {})
    check_line(str(caught.value))
    assert said in str(caught.value)
    assert (str(file) in str(caught.value)) == ("option" not in said)


def test_an_inner_strategy_is_the_one_that_is_named(pool: ModelPool, tmp_path: Path) -> None:
    load_file(written(tmp_path, "mix", "deep()", "1 / 0"))
    with pytest.raises(PluginError, match=r"^strategy 'broken' failed: ZeroDivisionError.*broken_mix\.py:11\)$"):
        merging.merge(pool, merging.WiseFt(inner=KINDS["strategy"]["broken"]()))


def test_a_benchmark_s_row_says_the_same(pool: ModelPool, tmp_path: Path) -> None:
    for place in ("mix", "split"):
        load_file(written(tmp_path, place, "deep()", "1 / 0"))
    broken = KINDS["strategy"]["broken"](), KINDS["partitioner"]["broken"]()
    found = benchmark(pool, [broken[0], merging.Uniform()], task=tiny_task(), partitioners=[merging.Layer()])
    rows = {row.strategy: row for row in found.rows}
    assert rows["broken"].why == (
        f"strategy 'broken' failed: ZeroDivisionError: division by zero (at {tmp_path / 'broken_mix.py'}:11)"
    )
    assert rows["uniform"].finished


@pytest.mark.parametrize("failing", ["1 / 0", "import nothing_of_this_name", "def (:", "raise OSError('gone')"])
def test_a_plug_in_file_that_cannot_be_run(failing: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(f"'''A plug-in.'''\n\n{failing}\n")
    with pytest.raises(MergingError) as caught:
        load_file(file)
    check_line(str(caught.value))
    assert str(caught.value).startswith(f"plug-in {file} failed: ")
    assert str(caught.value).endswith(f"(at {file}:3)")


@pytest.mark.parametrize(("place", "code"), [("mix", 1), ("combine", 2), ("split", 1), ("maximize", 1), ("terms", 1)])
def test_the_command_says_it_in_one_line(place: str, code: int, merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    file = written(tmp_path, place, "deep()", "1 / 0")
    kind = PLACES[place][0].partition(" ")[0]
    more = [] if kind == "strategy" else ["--strategy", "manifoldmix", "-o", "strategy.tau=0.0"]
    ran = merge(*tiny, "--plugin", file, f"--{kind}", "broken", *more, "--no-tests", "--output", tmp_path / "out")
    assert ran.code == code
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert f"{PLACES[place][0]} failed" in line
    assert f"ZeroDivisionError: division by zero (at {file}:11)" in line
    assert ("MERGING_TRACEBACK=1" in line) == (code == 1)
    assert "Traceback" not in ran.err


def test_whoever_wants_the_traceback_gets_it(
    merge: Merge, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGING_TRACEBACK", "1")
    file = written(tmp_path, "mix", "deep()", "1 / 0")
    with pytest.raises(PluginError) as caught:
        merge(*tiny, "--plugin", file, "--strategy", "broken", "--output", tmp_path / "out")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_machine_s_errors_are_not_the_plug_in_s(tmp_path: Path) -> None:
    """A full disk below our own code, or no memory: said by whoever knows them."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(MemoryError), running("strategy 'x'", full):
        raise MemoryError
    ours = {"__name__": "merging.storage.somewhere"}
    exec(compile("def write():\n    raise OSError(28, 'No space left on device')", "/merging/x.py", "exec"), ours)  # noqa: S102
    with pytest.raises(OSError, match="No space left") as caught, running("strategy 'x'", full):
        ours["write"]()  # type: ignore[operator]
    assert not isinstance(caught.value, MergingError)
    with pytest.raises(PluginError) as told, running("strategy 'x'", full):
        full()
    assert told.value.exit_code == 2  # as the command ends for any file that cannot be used


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=50,
    )
)
def test_a_value_is_described_by_its_type_alone(value: Any) -> None:
    said = kind_of(value)
    assert len(said) < 60
    assert type(value).__name__.removesuffix("Type") in said
    assert said.isprintable()


def test_values_whose_length_is_an_error() -> None:
    class Odd:
        def __len__(self) -> int:
            raise RuntimeError("no length")

        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert kind_of(Odd()) == "an Odd"
    assert kind_of(object()) == "an object"


def test_an_error_that_is_no_exception_is_a_plug_ins_too() -> None:
    """A panic in Rust (tokenizers, safetensors, polars) and asyncio's cancellation derive from BaseException."""

    class PanicException(BaseException):
        pass

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say it")

    for error, words in ((PanicException("out of bounds"), "PanicException: out of bounds"), (Mute(), "Mute")):
        with pytest.raises(PluginError, match=f"strategy 'x' failed: {words}"), running("strategy 'x'", None):
            raise error
    with pytest.raises(KeyboardInterrupt), running("strategy 'x'", None):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("member", "code", "said"),
    [
        ('needs = "model"', 2, "needs of strategy 'broken' is a str of length 5, not a frozenset of words"),
        ('needs = ["model"]', 2, "needs of strategy 'broken' is a list of length 1, not a frozenset of words"),
        ("def requires(self): return 1 / 0", 1, "strategy 'broken' failed: ZeroDivisionError: division by zero (at "),
        ("def default_optimizer(self): return 1 / 0", 1, "strategy 'broken' failed: ZeroDivisionError: "),
        (
            "def default_optimizer(self): return merging.Recipe",
            2,
            "default_optimizer of strategy 'broken' returned the",
        ),
        ("x: 'Nix' = merging.option(1, 'what')", 2, "the types of the fields of Broken failed to be read: NameError"),
    ],
)
@pytest.mark.parametrize("command", ["run", "benchmark", "check"])
def test_the_command_names_a_strategy_whose_declaration_fails(
    member: str, code: int, said: str, command: str, merge: Merge, pool_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(
        HEAD.replace("{failing}", "0")
        + "@strategies.register('broken')\n@dataclass(frozen=True)\nclass Broken(merging.MixStrategy):\n"
        + f"    {member}\n    def mix(self, problem): return problem.single(0)\n"
    )
    models = ["--models", pool_folder / "model_*.safetensors", "--task", TINY, "--plugin", file]
    ran = merge(command, *models, "--strategies" if command == "benchmark" else "--strategy", "broken")
    assert said in ran.err
    if command == "run":  # a benchmark keeps the failure as a row, and a check says all mistakes
        assert ran.code == code
        assert ran.err.splitlines()[-1].startswith(f"error: {said}")

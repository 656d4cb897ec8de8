"""Damaged files, a thousand of each kind: either they work, or they are one clear line; never a traceback."""

from __future__ import annotations

import functools
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from merging.benchmarking.history import entry_of
from merging.benchmarking.reading import read_folder
from merging.cli.asking.request import combine, restore
from merging.cli.asking.tables import read_toml
from merging.cli.showing.benchmark_view import show_benchmark
from merging.errors import MergingError
from merging.mixing.arithmetic import materialise
from merging.storage.checkpoint import Checkpoint
from merging.storage.journal import FILE, Journal, read_header
from merging.storage.pool import ModelPool
from merging.storage.result import read_recipe
from merging.testing import tiny_pool
from tests.conftest import Merge

GOLDEN = Path(__file__).parents[1] / "golden/1.0"

thousand = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def survives(read: Callable[[], Any]) -> None:
    """It works, or raises a MergingError of one line."""
    said = "it works"
    try:
        read()
    except MergingError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said


@st.composite
def damaged_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    """Cut, flipped, overwritten or lengthened."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "delete"]))
        if how == "cut":
            del data[place:]
        elif how == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif how == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[place : place + draw(st.integers(1, 8))]
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, good: Any) -> Any:
    """The same structure with one place, anywhere in it, replaced, removed or added to."""
    if isinstance(good, dict) and good and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(good)))
        if not draw(st.integers(0, 5)):
            return {k: v for k, v in good.items() if k != key}
        return good | {key: draw(damaged_json(good[key]))}
    if isinstance(good, list) and good and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(good) - 1))
        return [*good[:place], draw(damaged_json(good[place])), *good[place + 1 :]]
    return draw(JSON)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool, and a finished run on it."""
    import merging
    from merging.testing import tiny_task

    where = tmp_path_factory.mktemp("fuzz")
    pool = tiny_pool(where / "pool", models=3)
    merging.merge(
        pool,
        merging.Greedy(),
        task=tiny_task(),
        partitioner=merging.Layer(),
        output=where / "run",
        request=combine({"models": [str(where / "pool")], "task": "digits"}, None),
    )
    return where


@functools.cache
def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.slow
@thousand
@given(data=st.data())
def test_recipes(folder: Path, data: st.DataObject) -> None:
    good, bad = content(folder / "run/recipe.json"), folder / "bad/recipe.json"
    bad.parent.mkdir(exist_ok=True)
    if data.draw(st.booleans()):
        bad.write_bytes(data.draw(damaged_bytes(good)))
    else:
        bad.write_text(json.dumps(data.draw(damaged_json(json.loads(good)))))
    pool = ModelPool.open([folder / "pool/model_*.safetensors"])
    survives(lambda: materialise(read_recipe(bad), pool))


TOML = b"""[task]
model = "python:merging.testing.fixtures:TinyNet"
held_out = "data.npz:x"
size = 32
mean = [0.5, 0.5, 0.5]
[task.shifts]
sketch = "data.npz:y"
[pool]
models = ["pool/*.pt"]
base = "~/base.pt"
[run]
strategy = "greedy"
budget = 12
freeze = ["head"]
certify_split = 0.5
[run.options]
"strategy.tau" = 0.9
optimizer.step = 0.1
"""


@pytest.mark.slow
@thousand
@given(text=damaged_bytes(TOML))
def test_merge_toml(folder: Path, text: bytes) -> None:
    path = folder / "merge.toml"
    path.write_bytes(text)
    survives(lambda: json.dumps(combine({}, read_toml(path), folder)))


@pytest.mark.slow
@thousand
@given(data=st.data())
def test_journals(folder: Path, data: st.DataObject) -> None:
    good = content(folder / "run" / FILE)
    bad = folder / "journal" / FILE
    bad.parent.mkdir(exist_ok=True)
    if data.draw(st.booleans()):
        bad.write_bytes(data.draw(damaged_bytes(good)))
    else:
        lines = data.draw(damaged_json([json.loads(line) for line in good.splitlines()[:4]]))
        bad.write_text("".join(json.dumps(line) + "\n" for line in (lines if isinstance(lines, list) else [lines])))

    def resume() -> None:
        restore(read_header(bad).get("request"), bad.parent)
        with Journal(bad, resume=True) as journal:
            old = journal.head()
            while old is not None:
                if old["event"] == "evaluation":
                    journal.replay(old["key"], old["split"])
                journal.write(**old)
                old = journal.head()

    survives(resume)


def read_all(path: Path) -> None:
    pool = ModelPool([Checkpoint(path)])
    _ = pool.ingredients
    for name in pool.tensors:
        pool.checkpoints[0].read(name)


@pytest.mark.slow
@thousand
@given(data=st.data())
def test_safetensors_headers(folder: Path, data: st.DataObject) -> None:
    good = content(folder / "pool/model_0.safetensors")
    (length,) = struct.unpack("<Q", good[:8])
    header, rest, bad = json.loads(good[8 : 8 + length]), good[8 + length :], folder / "bad.safetensors"
    if data.draw(st.booleans()):
        header = json.dumps(data.draw(damaged_json(header))).encode()
        claimed = data.draw(st.sampled_from([len(header)] * 4 + [0, 1, len(header) + 1, 2**31, 2**63, 2**64 - 1]))
        bad.write_bytes(struct.pack("<Q", claimed) + header + rest)
    else:
        bad.write_bytes(data.draw(damaged_bytes(good[: 8 + length])) + rest)
    survives(lambda: read_all(bad))


@pytest.mark.slow
@thousand
@given(data=st.data())
def test_pickles(folder: Path, data: st.DataObject) -> None:
    good = folder / "good.pt"
    if not good.exists():
        torch.save({"state_dict": {"a": torch.arange(6.0), "b": torch.ones(2, 2)}, "epoch": 3}, good)
    bad = folder / "bad.pt"
    bad.write_bytes(data.draw(damaged_bytes(content(good))))
    survives(lambda: read_all(bad))


@pytest.mark.slow
@thousand
@given(data=st.data())
def test_reports_and_benchmarks(folder: Path, data: st.DataObject) -> None:
    """Of golden files, which are small; what was read is shown, too."""
    name = data.draw(st.sampled_from(["run/report.json", "benchmark/benchmark.json"]))
    place = folder / "shown"
    place.mkdir(exist_ok=True)
    for each in place.iterdir():
        each.unlink()
    path = place / Path(name).name
    path.write_text(json.dumps(data.draw(damaged_json(json.loads(content(GOLDEN / name))))), encoding="utf-8")

    def read() -> None:
        entry_of(place)
        found = read_folder(place)
        found.dumps()
        found._repr_html_()
        show_benchmark(Console(file=io.StringIO(), width=100, markup=False), found)

    survives(read)


def test_a_few_through_the_command_line(merge: Merge, folder: Path) -> None:
    for cut in (0, 5, 60, 400):
        (Path.cwd() / "recipe.json").write_bytes(content(folder / "run/recipe.json")[:cut])
        (Path.cwd() / "m.safetensors").write_bytes(content(folder / "pool/model_0.safetensors")[:cut])
        for arguments in (["apply", "recipe.json"], ["run", "--strategy", "best", "--models", "m.safetensors"]):
            ran = merge(*arguments)
            assert ran.code == 2
            assert ran.err.count("error:") == 1

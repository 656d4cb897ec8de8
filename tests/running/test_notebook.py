"""A real kernel: bars of the calls that take long, tables of what they return, pictures, and the stop button."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import merging
from merging.errors import OptionError
from merging.plugins.bar import Bar, in_notebook
from merging.plugins.progress import Silent
from merging.plugins.watcher import Watcher
from merging.storage.pool import ModelPool
from merging.testing.fixtures import tiny_task

SETUP = """
import signal
from pathlib import Path

import merging
from merging.testing import tiny_pool
from merging.testing.fixtures import tiny_task

pool, task, whole = tiny_pool(Path("pool")), tiny_task(), merging.Whole()
pressed = 0

def press():
    global pressed
    pressed += 1
    if pressed == 60:
        signal.raise_signal(signal.SIGINT)
    return False
"""
FIRST = """
import sys

import merging

print("tqdm.auto" in sys.modules)
merging.model_source("timm:resnet18")
"""
"""What a notebook may begin with: timm, as open_clip and transformers, asks for ipywidgets, which nobody needs."""
SHOWN = {
    "merge": "result = merging.merge(pool, merging.Greedy(), task=task)",
    "benchmark": "found = merging.benchmark(pool, [merging.Uniform(), merging.Best()], task=task)",
    "evaluate": "merging.evaluate(pool.checkpoints[0], task)",
    "inspect_pool": "looked = merging.inspect_pool(pool, whole, task=task)",
    "interpolate": "line = merging.interpolate(merging.ModelPool(pool.checkpoints[:2]), task, steps=2)",
    "check": "from merging.looking.check import check; check([str(Path('pool'))], merging.Uniform(), task=task)",
    "finetune": "trained = merging.finetune(tiny_task, 'tuned', merging.Sweep.of({'epochs': 1}), models=1, jobs=1, "
    "base=pool.base.path)",
}
"""Function → a cell that calls it; the bar is there without being asked for."""
SEEN = {
    "result": "result",
    "found": "found",
    "pool": "pool",
    "task": "task",
    "looked": "looked",
    "line": "line",
    "recipe": "result.recipe",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell of a notebook that was run from its first cell to its last."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (extra dev-full)")
    import nbformat
    from nbclient import NotebookClient

    sources = {"first": FIRST, "setup": SETUP, **SHOWN, **SEEN}
    sources |= {
        "silent": "_ = merging.merge(pool, merging.Greedy(), task=task, progress=False)",
        "stopped": "stopped = merging.merge(pool, merging.ManifoldMix(), task=task, partitioner=merging.Layer(), "
        "should_stop=press)\nprint(stopped.report.state, len(stopped.report.rows), len(stopped.state_dict()))",
        "picture": "result.plot()",
    }
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources.values()])
    client = NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return {name: cell.outputs for name, cell in zip(sources, book.cells, strict=True)}


def streamed(outputs: list[Any], name: str) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")


@pytest.mark.slow
def test_a_notebook_sees_how_far_a_call_is(cells: dict[str, list[Any]]) -> None:
    for name in SHOWN:
        widgets = [
            output for output in cells[name] if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        ]
        assert "…" in streamed(cells[name], "stderr") or widgets, name
    said = streamed(cells["merge"], "stderr")
    assert re.search(r"scoring the single models .*\d/\d, .* left, best \d\d\.\d\d %", said)
    assert said.endswith("\r"), "the bar is taken away at the end"
    assert not cells["silent"]


@pytest.mark.slow
def test_the_first_cell_shows_no_warning(cells: dict[str, list[Any]]) -> None:
    assert streamed(cells["first"], "stderr") == ""
    assert streamed(cells["first"], "stdout") == "True\n"


@pytest.mark.slow
def test_a_notebook_shows_tables_and_pictures(cells: dict[str, list[Any]]) -> None:
    for name in SEEN:
        (output,) = cells[name]
        assert "<table>" in output.data["text/html"], name
        assert len(output.data["text/plain"]) < 300
    (picture,) = cells["picture"]
    assert picture.data["image/png"]
    (kind,) = (kind for kind in picture.data if "vegalite" in kind)
    assert picture.data[kind]["layer"]
    assert picture.metadata["image/png"]["width"] == 740


@pytest.mark.slow
def test_stopping_the_kernel_gives_the_best_so_far(cells: dict[str, list[Any]]) -> None:
    state, rows, tensors = streamed(cells["stopped"], "stdout").split()
    assert state == "interrupted"
    assert int(rows) >= 1
    assert int(tensors) > 1


@pytest.mark.slow
def test_a_script_is_silent(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"{SETUP}\n{SHOWN['merge']}\n{SHOWN['evaluate']}\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_progress_is_a_switch_or_an_object(pool: ModelPool, capfd: pytest.CaptureFixture[str]) -> None:
    def merge(**told: Any) -> str:
        merging.merge(pool, merging.Greedy(), task=tiny_task(), **told)
        return capfd.readouterr().err

    assert merge() == merge(progress=False) == merge(progress=None) == merge(watcher=Watcher(progress=False)) == ""
    said = merge(progress=True)
    assert "scoring the single models" in said
    assert "left, best" in said
    assert said.endswith("\r")
    assert "opening the models" in merge(watcher=Watcher(progress=True))
    with pytest.raises(OptionError, match=r"progress is .*; it is True, False, or an object derived from"):
        merge(progress="yes")


def test_the_bar_is_taken_away_when_a_call_fails(pool: ModelPool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(merging.MergingError):
        merging.merge(pool, merging.ManifoldMix(), progress=True)
    said = capfd.readouterr().err
    assert said
    assert said.endswith("\r")


def test_outside_a_kernel_nobody_is_told() -> None:
    assert not in_notebook()
    told = Watcher().changed({}).progress
    assert isinstance(told, Silent)
    assert not isinstance(told, Bar)
    assert repr(Watcher().progress) == "None"


def test_a_warning_stays_and_what_a_search_does_is_a_part_of_a_step(capfd: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.say("nothing was begun")
    bar.stage("searching", 2)
    bar.search(5, 10, 0.5)
    bar.precision("bf16")
    bar.best(merging.Outcome(score=0.5, samples=2), 3)
    bar.say("warning: labels in another order?\x1b[2J")
    bar.advance(2)
    bar.close()
    bar.close()
    said = capfd.readouterr().err
    assert "best 50.00 % bf16, 3 models" in said
    assert "warning: labels in another order?\\x1b[2J\n" in said
    assert "nothing was begun" not in said

"""What commands say while they work is so: no piece that is not done, no unit or structure of the program's own."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from safetensors.torch import save_file

from merging.cli.showing.terminal import TerminalProgress
from merging.plugins.progress import Silent, tell_unit
from merging.training.hyperparameters import HyperParameters
from merging.values.outcome import Outcome
from tests.conftest import ENVIRONMENT, Merge

BUILT_IN = "using the built-in task digits"


def test_a_run_speaks_of_what_it_does(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "greedy", "--no-tests", "--output", "run")
    assert ran.code == 0
    lines = ran.err.splitlines()
    assert "merging …" in lines
    assert "MiB" not in ran.err
    assert not [line for line in lines if "test set" in line]
    assert lines.count("uniform soup") == 1
    assert "uniform soup …" not in lines, "a strategy is named once"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--dry-run"],
        pytest.param(["check", "--strategy", "uniform"], marks=pytest.mark.slow),
        pytest.param(["inspect", "--barriers", "none"], marks=pytest.mark.slow),
    ],
)
def test_every_command_says_that_it_takes_the_built_in_task(merge: Merge, arguments: list[str], tmp_path: Path) -> None:
    ran = merge(*arguments)
    assert ran.code == 0
    assert ran.err.startswith(f"No --models and no merge.toml: {BUILT_IN}.\n")
    if arguments[0] != "run":
        return
    assert BUILT_IN not in merge(*arguments, "--task", "digits").err, "who names it knows"
    (tmp_path / "merge.toml").write_text('[task]\nname = "digits"\n')
    assert BUILT_IN not in merge(*arguments).err
    (tmp_path / "merge.toml").write_text("[run]\nseed = 1\n")
    assert f"No --models and merge.toml names none: {BUILT_IN}." in merge(*arguments).err


def test_a_dry_run_speaks_in_words(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--partitioner", "whole", "--dry-run")
    assert ran.code == 0
    assert "whole: 1 component\n" in ran.out
    assert not re.search(r"[{}]|'|1 components", ran.out)
    assert re.search(r"^passes: fp32 on \w+, 1 thread, batches of \d+$", ran.out, re.MULTILINE)


def live(width: int) -> tuple[TerminalProgress, Console]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    return TerminalProgress(console), console


def line(progress: TerminalProgress, console: Console) -> str:
    """The live line as it is now."""
    with console.capture() as captured:
        console.print(progress._bar.get_renderable())
    return captured.get().rstrip("\n")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_live_line_keeps_its_bar_and_fits(width: int) -> None:
    progress, console = live(width)
    progress.stage("model_03: lr 0.00013, wd 0.01, 12 epochs, augmentation wide-affine, mixup 0.2", 900)
    progress.advance(450)
    progress.status("model_03, epoch 1: 66.00 % held-out")
    shown = line(progress, console)
    assert "\n" not in shown
    assert cell_len(shown) <= width
    assert "450/900" in shown
    assert "━━━" in shown
    assert "66.00" not in shown or "66.00 %" in shown
    if width >= 80:
        assert "epoch 1: 66.00 %" in shown
    progress.search(17, 250, 0.5)
    assert cell_len(line(progress, console)) <= width
    assert "450/900 · trial 17/250" in line(progress, console)


def test_the_live_line_speaks_of_what_is_done_now() -> None:
    progress, console = live(100)
    progress.stage("model_00", 10)
    assert "left" not in line(progress, console), "nobody knows yet how long it takes"
    progress.status("epoch 3: 68.75 % held-out")
    progress.stage("model_01", 10)
    assert "68.75" not in line(progress, console), "that was another model"
    progress.best(Outcome(score=0.75, samples=4, seconds=0.0), 2)
    progress.stage("greedy soup")
    assert "best 0.7500, 2 models" in line(progress, console) or "best 75.00 %, 2 models" in line(progress, console)
    tell_unit(progress, "MiB")
    progress.stage("merging", 456)
    progress.advance(312)
    assert "312/456 MiB" in line(progress, console)
    progress.stage("comparing", 3)
    assert "MiB" not in line(progress, console)
    tell_unit(Silent(), "MiB")  # a progress need not know of units


def test_hyper_parameters_are_named() -> None:
    assert HyperParameters(epochs=1).shown().endswith("1 epoch, no augmentation")
    assert "augmentation flip, mixup 0.2" in HyperParameters(augmentation="flip", mixup=0.2).shown()


@pytest.mark.slow
def test_python_ends_in_silence(tmp_path: Path) -> None:
    """Whatever the files are, and whether they were read or not."""
    state = {"a": torch.zeros(2, 2), "b": torch.ones(3)}
    save_file(state, tmp_path / "m.safetensors")
    torch.save(state, tmp_path / "m.pt")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "m.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    (tmp_path / "sharded").mkdir()
    for number, name in enumerate(state):
        save_file({name: state[name]}, tmp_path / "sharded" / f"model-0000{number + 1}-of-00002.safetensors")
    weight_map = '{"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}'
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text('{"weight_map": ' + weight_map + "}")
    program = (
        "import merging\n"
        "kept = []\n"
        "for name in ('m.safetensors', 'm.pt', 'legacy.pth', 'm.npz', 'sharded'):\n"
        "    try:\n"
        "        kept.append(merging.ModelPool.open([name]))\n"
        "    except merging.MergingError as error:\n"
        "        print(error)\n"
        "        continue\n"
        "    kept.append(kept[-1].checkpoints[0].read('a'))\n"
        "    kept.append(merging.ModelPool.open([name]))\n"
        "print(len(kept))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.splitlines()[-1]) == 9, done.stdout

"""Everything a user can get wrong: one clear line, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ENVIRONMENT, TASK, Merge, Ran, spawn

Change = Callable[[Path], None]


def changed(**tensors: torch.Tensor | None) -> Change:
    """Rewrites the second model with some tensors replaced, added or (None) taken out."""

    def change(folder: Path) -> None:
        state = load_file(folder / "model_1.safetensors")
        for key, tensor in tensors.items():
            name = key.replace("__", ".")
            if tensor is None:
                del state[name]
            else:
                state[name] = tensor
        save_file(state, folder / "model_1.safetensors")

    return change


def truncated(folder: Path) -> None:
    path = folder / "model_1.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def lying(folder: Path) -> None:
    path = folder / "model_1.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


class Evil:
    """A pickle of it makes a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(Path.cwd() / "PWNED"), "w")


def code(folder: Path) -> None:
    (folder / "model_1.safetensors").unlink()
    torch.save({"fc1.weight": torch.zeros(8, 4), "evil": Evil()}, folder / "model_1.pt")


def plain_pickle(folder: Path) -> None:
    (folder / "model_1.safetensors").unlink()
    (folder / "model_1.pt").write_bytes(pickle.dumps(Evil()))


FILES: dict[str, tuple[Change, list[str]]] = {
    "missing tensor": (changed(fc2__bias=None), ["model_1.safetensors misses", "'fc2.bias'"]),
    "extra tensor": (changed(more=torch.zeros(1)), ["model_1.safetensors has an extra", "'more'"]),
    "other shape": (changed(fc1__bias=torch.zeros(9)), ["'fc1.bias' is [9] in", "model_1", "[8]"]),
    "other dtype": (
        changed(fc1__bias=torch.zeros(8, dtype=torch.int64)),
        ["'fc1.bias' is int64 in", "model_1", "convert one"],
    ),
    "NaN": (changed(fc1__bias=torch.full((8,), float("nan"))), ["model_1", "'fc1.bias' holds NaN", "leave"]),
    "Inf": (changed(fc1__bias=torch.full((8,), float("inf"))), ["model_1", "'fc1.bias' holds NaN or inf", "leave"]),
    "two architectures": (changed(fc1__weight=None, conv=torch.zeros(3)), ["different architectures", "model_1"]),
    "truncated": (truncated, ["model_1.safetensors: not a valid safetensors file", "save it again"]),
    "lying header": (lying, ["model_1.safetensors: not a valid safetensors file"]),
    "pickle with code": (code, ["model_1.pt", "wants to run code", "state_dict()"]),
    "plain pickle": (plain_pickle, ["model_1.pt"]),
}


def one_line(ran: Ran, *said: str) -> None:
    """Exit code 2 and a single error line that says all this."""
    assert ran.code == 2, ran.out + ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert ran.err.splitlines()[-1] == lines[0], "nothing comes after it"
    assert "Traceback" not in ran.err + ran.out
    for words in said:
        assert words in lines[0]


@pytest.fixture
def pool(pool_folder: Path, tmp_path: Path) -> Path:
    """Three models that a test may damage."""
    folder = tmp_path / "pool"
    folder.mkdir()
    for number in range(3):
        shutil.copy(pool_folder / f"model_{number}.safetensors", folder)
    return folder


@pytest.mark.parametrize("case", FILES)
def test_checkpoints_that_cannot_be_merged(merge: Merge, pool: Path, case: str) -> None:
    change, said = FILES[case]
    change(pool)
    for strategy in ("uniform", "manifoldmix"):
        task = [] if strategy == "uniform" else ["--task", TASK]
        one_line(merge("run", "--strategy", strategy, "--models", pool, *task, "--output", "out"), *said)
    assert not Path("out").exists()
    assert not Path("PWNED").exists(), "a checkpoint ran code"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "nothing-*.pt"], ["no models match", "nothing-*.pt", ".safetensors"]),
        (["--strategy", "greedyy"], ["unknown strategy 'greedyy'", "did you mean 'greedy'"]),
        (["--partitioner", "clip-c9"], ["unknown partitioner 'clip-c9'", "did you mean 'clip-c8'"]),
        (["--optimizer", "cobyla"], ["unknown optimizer 'cobyla'", "did you mean 'scipy-cobyla'"]),
        (["--objective", "accurracy"], ["unknown objective", "did you mean 'accuracy'"]),
        (["-o", "strategy.taau=1"], ["unknown option of 'manifoldmix' 'taau'", "did you mean 'tau'"]),
        (["-o", "strategy.tau=7"], ["option 'tau' of 'manifoldmix'", "between"]),
        (["-o", "optimizer.method=NGOpt"], ["unknown option of 'nevergrad-cobyla' 'method'"]),
        (["-o", "strategy.tau=high"], ["option 'tau'", "'high'"]),
        (["--optimizer", "nevergrad", "-o", "optimizer.method=Cobila"], ["did you mean 'Cobyla'"]),
        (["--partitioner", "block", "-o", "partitioner.count=99"], ["at most"]),
        (["--budget", "0"], ["budget", "is 0", "at least 1"]),
        (["--max-evaluations", "2"], ["does not even rank"]),
        (["--certify-split", "1.5"], ["certify", "is 1.5", "between 0 and 1"]),
        (["--cache-memory", "-1"], ["cache", "is -1", "at least 0"]),
        (["--seed", "-1"], ["seed", "is -1", "at least 0"]),
        (["--freeze", "("], ["not a regular expression"]),
        (["--device", "gpu"], ["unknown device 'gpu'"]),
        (["--task", "digitz"], ["unknown task 'digitz'", "did you mean 'digits'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("-") else "",
)
def test_words_and_numbers(merge: Merge, tiny: list[str], arguments: list[str], said: list[str]) -> None:
    one_line(merge(*tiny, "--output", "out", *arguments), *said)
    assert not Path("out").exists()


def test_one_model_where_two_are_needed(merge: Merge, pool: Path) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", pool / "model_0.safetensors", "--output", "out")
    one_line(ran, "strategy 'uniform' needs at least 2 models, got 1", "model_0")


DATA = '[task]\nmodel = "python:small:build"\nheld_out = "data.npz:x"\n[pool]\nmodels = ["pool"]\n'


@pytest.mark.parametrize(
    ("labels", "said"),
    [([], "empty"), ([0, 1, 3], "labels from 0 to 3, but the model has 3 classes"), ([-1, 0, 1], "label -1 is out")],
)
def test_held_out_data_that_cannot_score(merge: Merge, tmp_path: Path, labels: list[int], said: str) -> None:
    (tmp_path / "small.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))\n"
    )
    (tmp_path / "pool").mkdir()
    for number in range(2):
        save_file({"1.weight": torch.ones(3, 48) * number, "1.bias": torch.zeros(3)}, f"pool/m{number}.safetensors")
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    np.savez("data.npz", x_images=images, x_labels=np.array(labels, dtype=np.int64))
    Path("merge.toml").write_text(DATA)
    one_line(merge("run", "--trust-code", "--strategy", "greedy", "--output", "out"), said)
    assert not Path("out").exists(), "there is nothing to go on with"
    assert not list(Path("out").glob("model*"))


def test_output_below_a_file(merge: Merge, tiny: list[str]) -> None:
    Path("file").write_text("mine")
    one_line(merge(*tiny, "--output", "file/out"), "file")
    one_line(merge(*tiny, "--output", "file"), "--output file is a file")
    assert Path("file").read_text() == "mine"


def test_recipe_whose_ingredient_has_changed(merge: Merge, tiny: list[str], pool: Path) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", pool, "--output", "out")
    assert ran.code == 0, ran.err
    changed(fc1__bias=torch.zeros(8))(pool)
    one_line(merge("apply", "out/recipe.json", "--output", "again.safetensors"), "'model_1'", "changed", "--models")
    assert not list(Path.cwd().glob("*again*"))


def test_a_folder_that_holds_another_run(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "greedy", "--output", "out").code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    one_line(
        merge(*tiny, "--strategy", "best", "--output", "out"),
        "out holds another run",
        "with --resume, or",
        "--overwrite",
    )
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.slow
def test_two_runs_into_one_folder_at_once(tiny: list[str], tmp_path: Path) -> None:
    """One of them has it; the other says so, and the winner's result is whole."""
    runs = [spawn([*tiny, "--budget", "200", "--output", "out"], tmp_path) for _ in range(2)]
    ended = [(*run.communicate(timeout=300), run.returncode) for run in runs]
    assert sorted(code for *_, code in ended) == [0, 2], ended
    loser = next(err for _, err, code in ended if code == 2)
    assert "Traceback" not in loser
    assert any(words in loser for words in ("holds another run", "another run is writing")), loser
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors",
        "recipe.json",
        "report.json",
        "README.md",
        "events.jsonl",
    }
    done = spawn(["apply", "out/recipe.json", "--output", "again.safetensors"], tmp_path)
    done.communicate(timeout=120)
    assert done.returncode == 0


def may_mount() -> bool:
    with_mount = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(with_mount, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="a small disk cannot be mounted here")
@pytest.mark.parametrize("size", ["4k", "12k"])
def test_a_disk_that_is_full(tiny: list[str], tmp_path: Path, size: str) -> None:
    """A real file system of a few pages, for a run and for apply: one line, and no half-written model."""
    (tmp_path / "disk").mkdir()
    merge = f"{sys.executable} -m merging"
    flags = " ".join(f"'{flag}'" for flag in tiny)
    script = (
        f"mount -t tmpfs -o size={size} tmpfs disk && "
        f"{{ {merge} {flags} --strategy greedy --output disk/out; echo code $?; }} && find disk && rm -rf disk/* && "
        f"head -c 1000000 /dev/zero > disk/filler; "
        f"{{ {merge} apply whole/recipe.json --output disk/model.safetensors; echo code $?; }}; find disk"
    )
    whole = spawn([*tiny, "--strategy", "greedy", "--output", "whole"], tmp_path)
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("code 2") == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2, done.stderr
    assert all("No space left" in line or "space" in line for line in errors)
    assert "model" not in done.stdout
    assert "report.json" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or not may_mount(), reason="a read-only disk cannot be mounted here")
def test_a_disk_that_cannot_be_written(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    flags = " ".join(f"'{flag}'" for flag in tiny)
    script = f"mount -t tmpfs -o ro tmpfs disk && {sys.executable} -m merging {flags} --output disk/out"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr

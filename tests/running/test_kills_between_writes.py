"""Killed between two of its writes: what is there is never described wrongly, and the same command then succeeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import merging
from merging.benchmarking.rendering.forms import render
from merging.errors import FolderError
from merging.storage import atomic
from merging.storage.content import content_hash
from merging.storage.lock import Lock
from merging.testing import tiny_pool, tiny_task
from merging.training.finetune import finetune
from merging.training.hyperparameters import Sweep
from tests.conftest import ENVIRONMENT, Merge
from tests.killed import killed_at

pytestmark = pytest.mark.slow

SWEEP = Sweep.of({"epochs": 1, "batch_size": 30, "learning_rate": [0.05, 0.02]})


def train(output: Path, base: Path, models: int = 1, **more: int) -> object:
    return finetune(tiny_task, output, SWEEP, models=models, base=base, jobs=1, device="cpu", **more)  # type: ignore[arg-type]


@pytest.fixture
def bases(tmp_path: Path) -> list[Path]:
    """Two starts of one architecture."""
    tiny_pool(tmp_path / "start", models=1)
    return [tmp_path / "start/base.safetensors", tmp_path / "start/model_0.safetensors"]


def bits(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}


@pytest.mark.parametrize("probe", [0, 1])
def test_finetune_never_starts_from_another_base(bases: list[Path], tmp_path: Path, probe: int) -> None:
    train(tmp_path / "whole", bases[0], linear_probe=probe)
    number, killed = 0, True
    while killed:
        number += 1
        pool = tmp_path / f"killed{number}"
        pool.mkdir()
        killed = killed_at(number, lambda pool=pool: train(pool, bases[0], linear_probe=probe), pool)  # type: ignore[misc]
        if (pool / "finetune.json").exists():
            with pytest.raises(FolderError, match="another base"):
                train(pool, bases[1], linear_probe=probe)
            train(pool, bases[0], linear_probe=probe)
            assert bits(pool) == bits(tmp_path / "whole")
            record = json.loads((pool / "finetune.json").read_text())
            assert record["base"] == content_hash(merging.Checkpoint(pool / "base.safetensors").load())
        else:  # nothing is known of it: nothing of the killed one may be there
            train(pool, bases[1], linear_probe=probe)
        assert not [path.name for path in pool.iterdir() if path.name.startswith(".")]
    assert number > 8


def test_a_base_without_a_record_is_not_believed(bases: list[Path], tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "base.safetensors").write_bytes(bases[1].read_bytes())
    with pytest.raises(FolderError, match="without a record"):
        train(pool, bases[0])
    assert [path.name for path in pool.iterdir()] == ["base.safetensors"]
    train(pool, pool / "base.safetensors")


def test_two_into_one_pool(bases: list[Path], tmp_path: Path, merge: Merge) -> None:
    task = "python:merging.testing.fixtures:tiny_task"
    command = ["finetune", "--task", task, "--base", str(bases[0]), "--models", "1", "--jobs", "1", "--set", "epochs=1"]
    (tmp_path / "pool").mkdir()
    with Lock(tmp_path / "pool"):
        ran = merge(*command, "--output", str(tmp_path / "pool"))
        assert (ran.code, ran.err.count("another run is writing")) == (2, 1)
        assert [path.name for path in (tmp_path / "pool").iterdir()] == [".lock"]
    assert merge(*command, "--output", str(tmp_path / "pool")).code == 0


def test_two_finetune_at_once_do_not_share_a_folder(bases: list[Path], tmp_path: Path) -> None:
    """Whichever comes second is refused, or finds another pool; the record is that of the models."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.running.test_kills_between_writes import train\n"
        "from merging.errors import FolderError\n"
        "try:\n    train(Path('pool'), Path(sys.argv[1]), 3)\nexcept FolderError as error:\n    sys.exit(f'{error}')\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[2])}
    two = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(base)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        for base in bases
    ]
    errors = [process.communicate(timeout=120)[1] for process in two]
    assert sorted(process.returncode for process in two) == [0, 1]
    assert any(said in "".join(errors) for said in ("another run is writing", "another base"))
    winner = bases[[process.returncode for process in two].index(0)]
    record = json.loads((tmp_path / "pool/finetune.json").read_text())
    assert record["start"] == content_hash(merging.Checkpoint(winner).load())
    assert {json.loads(p.read_text())["base"] for p in (tmp_path / "pool").glob("model_*.json")} == {record["base"]}


def test_apply_killed_anywhere(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out").code == 0
    expected = Path("out/model.safetensors").read_bytes()
    for output in ("one.safetensors", "folder"):
        number, killed = 0, True
        while killed:
            number += 1
            target = tmp_path / str(number) / output
            target.parent.mkdir(exist_ok=True)
            if target.suffix:
                target.write_bytes(b"before")
            again = ["apply", "out", "--output", str(target), *(["--overwrite"] if target.suffix else [])]
            killed = killed_at(number, lambda again=again: merge(*again), target.parent)  # type: ignore[misc]
            model = target if target.suffix else target / "model.safetensors"
            assert not model.exists() or model.read_bytes() in (b"before", expected)
            if target.suffix or not target.exists():
                assert merge(*again).code == 0
                assert [path.name for path in target.parent.iterdir() if path.name.startswith(".")] == []
            assert model.read_bytes() == expected
        assert number > 2


def test_rendering_killed_anywhere(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    """Tables, page and pictures never stand beside the figures of another benchmark, and the figures are never lost."""
    from merging.benchmarking.reading import read_folder

    flags = [word for word in tiny if word != "run"]
    for name, methods in (("old", "best,uniform"), ("new", "best,greedy")):
        assert merge("benchmark", *flags, "--strategies", methods, "--output", name).code == 0
    old, new = read_folder(Path("old")), read_folder(Path("new"))
    shown = {path: path.read_bytes() for path in Path("new").glob("benchmark.*")}
    number, killed = 0, True
    while killed:
        number += 19  # every drawing takes half a second: a part of the places
        place = tmp_path / "place"
        atomic.remove(place)
        render(old, place)
        killed = killed_at(number, lambda place=place: render(new, place), place)  # type: ignore[misc]
        result = (place / "benchmark.json").read_text()
        assert result in (old.dumps(), new.dumps())
        for form in ("html", "md", "tex", "csv"):
            beside = place / f"benchmark.{form}"
            if beside.exists() and result == new.dumps():
                assert beside.read_bytes() == shown[Path("new") / beside.name]
                assert (place / "pictures").is_dir()
            elif beside.exists():
                assert b"greedy" not in beside.read_bytes()
    render(new, place)
    assert {path.name: path.read_bytes() for path in place.glob("benchmark.*")} == {
        path.name: content for path, content in shown.items()
    }
    assert number > 19
    assert not list(place.glob(".*"))


def test_a_model_that_was_taken_away_is_written_before_its_record(bases: list[Path], tmp_path: Path) -> None:
    train(tmp_path / "pool", bases[0])
    os.unlink(tmp_path / "pool/model_00.safetensors")
    record = tmp_path / "pool/model_00.json"
    number, killed = 0, True
    while killed:
        number += 1
        killed = killed_at(number, lambda: train(tmp_path / "pool", bases[0]), tmp_path / "pool")
        assert not record.exists() or (tmp_path / "pool/model_00.safetensors").exists() or number < 3
    assert torch.isfinite(merging.Checkpoint(tmp_path / "pool/model_00.safetensors").load()["fc1.weight"]).all()

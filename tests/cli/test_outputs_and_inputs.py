"""What a command reads is never what it replaces; inputs with a byte order mark; limits that are named."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from merging.cli.asking.outputs import check_folder
from merging.cli.asking.tables import read_toml
from merging.data.tables import rows
from merging.errors import FolderError
from merging.storage.output_file import check_file
from merging.training.hyperparameters import Sweep
from tests.conftest import ENVIRONMENT, TASK, Merge


@pytest.fixture
def pool(pool_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    shutil.copytree(pool_folder, folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WAYS: dict[str, Callable[[Path], Path]] = {
    "itself": lambda file: file,
    "relative": lambda file: Path(os.path.relpath(file)),
    "around": lambda file: file.parent / ".." / file.parent.name / file.name,
    "link": lambda file: _made(Path("link.safetensors"), lambda link: link.symlink_to(file)),
    "hard link": lambda file: _made(Path("hard.safetensors"), lambda link: link.hardlink_to(file)),
    "linked folder": lambda file: _made(Path("linked"), lambda link: link.symlink_to(file.parent)) / file.name,
}


def _made(path: Path, make: Callable[[Path], None]) -> Path:
    make(path)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_apply_never_replaces_an_ingredient(merge: Merge, pool: Path, way: str) -> None:
    assert merge("run", "--models", pool / "model_*.safetensors", "--strategy", "uniform", "--output", "out").code == 0
    before = content(pool)
    output = WAYS[way](pool / "model_2.safetensors")
    for models in ([], ["--models", pool / "model_*.safetensors"]):
        ran = merge("apply", "out", "--output", output, "--overwrite", *models)
        assert ran.code == 2
        assert "which is read; choose another --output" in ran.err
    assert content(pool) == before
    ran = merge("apply", "out/recipe.json", "--output", "out/model.safetensors", "--overwrite")
    assert ran.code == 0, "the result of the run itself is none of its inputs"


def test_apply_writes_into_no_model_folder(merge: Merge, pool: Path) -> None:
    for number in range(2):
        (pool / f"m{number}").mkdir()
        (pool / f"m{number}" / "config.json").write_text("{}", encoding="utf-8")
        (pool / f"model_{number}.safetensors").rename(pool / f"m{number}" / "model.safetensors")
    models = ["--models", pool / "m0", "--models", pool / "m1"]
    assert merge("run", *models, "--strategy", "uniform", "--output", "out").code == 0
    for name in ("model.safetensors", "other.safetensors"):
        ran = merge("apply", "out", "--output", pool / "m0" / name, "--overwrite")
        assert ran.code == 2
        assert "which is read" in ran.err or "a model that is read" in ran.err


@pytest.mark.parametrize("name", ["model_00.safetensors", "base.safetensors", "model_07.safetensors"])
def test_finetune_never_replaces_its_base(merge: Merge, pool: Path, name: str) -> None:
    if name != "base.safetensors":
        (pool / "base.safetensors").rename(pool / name)
    before = content(pool)
    ran = merge(
        "finetune", "--base", pool / name, "--task", TASK, "--models", "1", "--output", pool, "--set", "epochs=1"
    )
    assert ran.code == 2
    assert f"{name} is read, and --output" in ran.err
    assert content(pool) == before


def test_benchmark_never_replaces_its_models(merge: Merge, pool: Path) -> None:
    tiny = ["--models", pool / "model_*.safetensors", "--task", TASK, "--strategies", "best,uniform"]
    assert merge("benchmark", *tiny, "--output", "b", "--no-singles").code == 0
    shutil.copytree(pool, "b/methods/mine")
    before = content(Path("b/methods/mine"))
    tiny[1] = Path("b/methods/mine/model_*.safetensors")
    ran = merge("benchmark", *tiny, "--output", "b", "--overwrite")
    assert ran.code == 2
    assert "would replace it" in ran.err
    assert content(Path("b/methods/mine")) == before


@given(st.sampled_from(["a/x.pt", "a/methods/x.pt", "a/methods/b/x.pt", "x.pt", "a/b/x.pt"]), st.booleans())
def test_only_what_is_written_is_refused(tmp_path: Path, name: str, linked: bool) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    given_as = file
    if linked:
        given_as = tmp_path / f"link-{name.replace('/', '-')}"
        given_as.unlink(missing_ok=True)
        given_as.symlink_to(file)
    try:
        check_folder(tmp_path / "a", [given_as], r"methods/.*")
        refused = False
    except FolderError:
        refused = True
    assert refused == name.startswith("a/methods/")
    with pytest.raises(FolderError):
        check_file(file, [given_as])


BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    toml, sweep = tmp_path / "merge.toml", tmp_path / "sweep.toml"
    toml.write_bytes(BOM + "[run]\nstrategy = 'grün'\n".encode())
    assert read_toml(toml).run.strategy == "grün"
    sweep.write_bytes(BOM + b"epochs = 3\n")
    assert Sweep.read(sweep).values("epochs") == Sweep.of({"epochs": 3}).values("epochs")
    for suffix, text in {
        ".csv": "path,label\na.png,é\n",
        ".tsv": "path\tlabel\na.png\té\n",
        ".jsonl": '{"path": "a.png", "label": "é"}\n',
        ".json": '[{"path": "a.png", "label": "é"}]',
    }.items():
        table = tmp_path / f"table{suffix}"
        table.write_bytes(BOM + text.encode())
        assert rows(table) == [{"path": "a.png", "label": "é"}]


@pytest.mark.slow
def test_many_shards_need_more_open_files_than_a_shell_gives(tmp_path: Path) -> None:
    """The limit is raised where it may be, and named where it may not."""
    for number in range(12):
        folder = tmp_path / "pool" / f"m{number}"
        folder.mkdir(parents=True)
        state = {f"t{k}": torch.full((2,), float(number)) for k in range(15)}
        names = {name: f"model-{k + 1:05}-of-00015.safetensors" for k, name in enumerate(state)}
        for name, file in names.items():
            save_file({name: state[name]}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")

    def run(soft: int, hard: int, output: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "merging", "run", "--models", "pool/m*", "--strategy", "uniform", "--output"]
        return subprocess.run(
            [*command, output],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        )

    done = run(128, 1024, "out")
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["t3"], torch.full((2,), 5.5))
    done = run(128, 128, "other")
    assert done.returncode == 2
    assert "ulimit -n" in done.stderr
    assert "free some space" not in done.stderr
    assert not (tmp_path / "other").exists()


def test_an_input_that_goes_away_is_named(merge: Merge, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from merging.mixing.writing import Writing

    before = Writing.model

    def gone(self: Writing, *given: object, **more: object) -> object:
        (pool / "model_1.safetensors").unlink()
        return before(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Writing, "model", gone)
    ran = merge("run", "--models", pool / "model_*.safetensors", "--strategy", "uniform", "--output", "out")
    assert ran.code == 2
    assert "model_1.safetensors" in ran.err
    assert "free some space" not in ran.err
    assert not Path("out").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_better_and_worse_are_two_signs_in_every_encoding(encoding: str) -> None:
    """Written to a pipe that lacks them, ▲ and ▼ are not one and the same question mark."""
    code = "from merging.cli.showing.streams import prepare; prepare(); print('1.00¹▲ 2.00 ▼ 3.00 – 模')"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    said = found.stdout.decode(encoding)
    assert said.replace("¹", "'").replace("–", "-") == "1.00'^ 2.00 v 3.00 - ?\n"

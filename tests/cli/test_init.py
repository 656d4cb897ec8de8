"""``merge init``: from a folder of checkpoints and one of pictures to a merge.toml that runs as it is."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits

from merging.cli.asking.tables import File
from merging.looking.guessing import guess
from tests.conftest import ENVIRONMENT, Merge

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as pictures of 32 pixels, and three networks whose heads were fitted to them in ImageNet's normalisation.

    The library's own configuration of this network has 160 pixels and another normalisation.
    """
    folder = tmp_path_factory.mktemp("material")
    digits = load_digits()
    small = np.repeat(np.repeat((digits.images * 15.9).astype(np.uint8), 4, axis=1), 4, axis=2)
    for number, (pixels, label) in enumerate(zip(small, digits.target, strict=True)):
        part = "train" if number < 900 else "val" if number < 1350 else "test"
        place = folder / "images" / part / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(place / f"{number}.png")
    order = sorted(NAMES)
    labels = torch.tensor([order.index(NAMES[label]) for label in digits.target[:900]])
    inputs = (torch.from_numpy(small[:900, :, :, None].repeat(3, 3)) / 255 - MEAN) / STD
    torch.manual_seed(0)
    model: Any = timm.create_model("test_resnet", num_classes=10).eval()
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(inputs.permute(0, 3, 1, 2)), pre_logits=True).double()
    (folder / "checkpoints").mkdir()
    for seed in range(3):
        chosen = torch.randperm(900, generator=torch.Generator().manual_seed(seed))[:700]
        known = torch.cat([features[chosen], torch.ones(700, 1, dtype=torch.float64)], dim=1)
        wanted = torch.nn.functional.one_hot(labels[chosen], 10).double()
        normal = known.T @ known + 1e-4 * torch.eye(known.shape[1], dtype=torch.float64)
        head = torch.linalg.solve(normal, known.T @ wanted).float()
        state = model.state_dict() | {"fc.weight": head[:-1].T.contiguous(), "fc.bias": head[-1].contiguous()}
        torch.save(state, folder / "checkpoints" / f"run_{seed}.pth")
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path) -> Path:
    """The working folder, where the material lies."""
    for name in ("images", "checkpoints"):
        (tmp_path / name).symlink_to(material / name)
    return tmp_path


def written(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


@pytest.mark.slow
def test_what_it_writes_is_checked_and_run_without_an_edit(here: Path, merge: Merge) -> None:
    """Size, normalisation and the order of the classes are tried on held-out samples."""
    assert "There are checkpoints in this folder: merge init" in merge("run", "--no-tests", "--max-evaluations", 1).err
    ran = merge("init")
    assert ran.code == 0, ran.err
    assert ran.out.rstrip().endswith("next: merge check, then merge run")
    assert "The best that was tried on held-out samples" in ran.out
    assert Path("merge.toml").read_text().startswith("# Written by merge init for this folder. ")
    file = written(here / "merge.toml")
    assert file["task"] == {
        "model": "timm:test_resnet",
        "size": "stored",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "held_out": "images/val",
        "test": "images/test",
        "train": "images/train",
    }
    assert file["pool"] == {"models": ["checkpoints/run_*.pth"]}
    checked = merge("check")
    assert (checked.code, "Everything fits" in checked.out) == (0, True), checked.err
    ran = merge("run", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads((here / "out/report.json").read_text())
    report = (here / "out/report.json").read_text()
    assert json.loads(report)["rows"]
    assert "no better than a guess" not in report


@pytest.mark.slow
def test_a_head_in_another_order_than_the_folders_is_seen(here: Path, material: Path, merge: Merge) -> None:
    (here / "checkpoints").unlink()
    (here / "checkpoints").mkdir()
    for file in (material / "checkpoints").iterdir():
        state = torch.load(file)
        turned = {name: state[name].flip(0) for name in ("fc.weight", "fc.bias")}
        torch.save(state | turned, here / "checkpoints" / file.name)
    assert merge("init").code == 0
    assert written(here / "merge.toml")["task"]["classes"] == sorted(NAMES)[::-1]
    assert "(reversed)" in (here / "merge.toml").read_text()
    (here / "checkpoints/classes.txt").write_text("\n".join(sorted(NAMES)[::-1]) + "\n")
    assert merge("init", "--force", "--no-try").code == 0
    assert written(here / "merge.toml")["task"]["classes"] == sorted(NAMES)[::-1]
    assert "In the order of classes.txt" in (here / "merge.toml").read_text()


def test_nothing_is_replaced_unless_that_is_asked_for(here: Path, merge: Merge) -> None:
    (here / "merge.toml").write_text("# mine\n")
    ran = merge("init", "--no-try")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "give --force to replace it, or another --output" in ran.err
    assert (here / "merge.toml").read_text() == "# mine\n"
    assert merge("init", "--no-try", "--output", "other.toml").code == 0
    assert merge("init", "--no-try", "--force").code == 0
    assert (here / "merge.toml").read_text() == (here / "other.toml").read_text()
    File.model_validate(written(here / "merge.toml"))


def test_without_data_a_plain_average_is_proposed(here: Path, merge: Merge) -> None:
    (here / "images").unlink()
    ran = merge("init")
    assert ran.code == 0, ran.err
    assert "No labelled data were found" in " ".join(ran.out.split())
    assert merge("run", "--output", "out").code == 0
    assert (here / "out/model.safetensors").exists()


def test_paths_are_those_that_the_file_sees(here: Path, merge: Merge) -> None:
    """Wherever it is written, and wherever the command runs; the JSON says what the file says."""
    (here / "deep").mkdir()
    ran = merge("init", ".", "--no-try", "--output", "deep/merge.toml", "--json", "--data", "images/test")
    assert ran.code == 0, ran.err
    file = written(here / "deep/merge.toml")
    assert file["pool"]["models"] == ["../checkpoints/run_*.pth"]
    assert file["task"]["held_out"] == "../images/test"
    assert json.loads(ran.out)["task"]["held_out"] == "../images/test"
    assert "# guessed" in (here / "deep/merge.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["images"], "images holds no checkpoints"),
        (["--models", "x*.pth"], "no models match 'x*.pth'"),
        (["--model", "timm:resnet18"], "does not fit the task's model"),
        (["--data", "checkpoints"], "give held-out data with --data"),
    ],
)
def test_what_cannot_be_guessed_is_one_line_with_what_to_give(
    here: Path, merge: Merge, arguments: list[str], said: str
) -> None:
    ran = merge("init", "--no-try", *arguments)
    assert ran.code == 2
    assert said in ran.err.splitlines()[-1]
    assert not (here / "merge.toml").exists()


def test_an_interruption_writes_nothing(here: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals may come at any time before the file is there, whole; here once the folder is looked at."""
    (here / "merge.toml").write_text("# mine\n")
    looks = guess.propose

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return looks(*given)

    monkeypatch.setattr(guess, "propose", interrupted)
    ran = merge("init", "--force")
    assert ran.code == 130
    assert "interrupted; nothing was written" in ran.err
    assert (here / "merge.toml").read_text() == "# mine\n"


@pytest.mark.slow
def test_at_a_terminal_it_asks_where_it_cannot_know(here: Path) -> None:
    """Two sets may be the held-out data: the second is chosen."""
    (here / "photos").symlink_to((here / "images").resolve() / "val")
    (here / "scans").symlink_to((here / "images").resolve() / "val")
    (here / "images").unlink()
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "merging", "init", "--no-try"]
    process = subprocess.Popen(command, cwd=here, env=ENVIRONMENT, stdin=child, stdout=child, stderr=child)
    os.close(child)
    heard = b""
    while b"Number [1]" not in heard:
        heard += os.read(parent, 4096)
    os.write(parent, b"2\n")
    while select.select([parent], [], [], 60)[0]:
        try:
            heard += os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
    assert process.wait(60) == 0, heard
    os.close(parent)
    assert written(here / "merge.toml")["task"]["held_out"] == "scans"

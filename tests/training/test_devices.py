"""Fine-tuning on a device: a base with a head, without one, resumed, in every regime; and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.data.images import Normalise
from merging.errors import Stopped
from merging.plugins.discovery import load_all
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.testing import tiny_task
from merging.testing.fixtures import TinyNet
from merging.training.finetune import finetune
from merging.training.hyperparameters import HyperParameters, Sweep
from merging.training.regime import regimes
from merging.training.trainer import Run, accuracy
from tests.conftest import TASK, Merge
from tests.stopping import after

pytestmark = pytest.mark.slow
load_all()

SWEEP = Sweep.of({"learning_rate": {"low": 0.01, "high": 0.1, "log": True}, "epochs": [4], "batch_size": 30})


def headless(base: Path, folder: Path) -> Path:
    """The base without its head."""
    path = folder / "headless.safetensors"
    save_file({name: t for name, t in load_file(base).items() if not name.startswith("fc2")}, path)
    return path


@pytest.mark.parametrize("head", [True, False])
def test_a_pool_is_made_and_completed(head: bool, base: Path, tmp_path: Path, device: str) -> None:
    """The base is scored before any model is trained: with its head, with a new one, and when it is there already."""
    start = base if head else headless(base, tmp_path)
    task = tiny_task()
    for models in (1, 2, 2):
        made = finetune(tiny_task, tmp_path / "pool", SWEEP, models=models, base=start, device=device, task=task)
    assert all(trained.held_out > 0.7 for trained in made)
    assert json.loads((tmp_path / "pool" / "model_01.json").read_text())["numerics"]["device"] == device
    assert all(tensor.device.type == "cpu" for tensor in load_file(tmp_path / "pool" / "model_01.safetensors").values())


def test_the_commands(merge: Merge, base: Path, device: str) -> None:
    """Fine-tuned, completed, merged by a search that certifies, resumed, scored: each on the device."""
    words = (
        "finetune",
        "--task",
        TASK,
        "--base",
        base,
        "--output",
        "pool",
        "--device",
        device,
        "--set",
        "epochs=2",
        "--set",
        "batch_size=30",
        "--set",
        "augmentation=none",
        "--set",
        "mixup=0",
    )
    for models in ("2", "3"):
        ran = merge(*words, "--models", models)
        assert ran.code == 0, ran.err
    where = ("--models", "pool/model_*.safetensors", "--task", TASK, "--device", device)
    ran = merge(
        "run",
        *where,
        "--partitioner",
        "layer",
        "--certify-split",
        "0.3",
        "--budget",
        "8",
        "--output",
        "run",
        "--max-evaluations",
        "6",
        "--tune",
    )
    assert ran.code == 0, ran.err
    ran = merge("run", "--resume", "run", "--max-evaluations", "9", "--trust-code")
    assert ran.code == 0, ran.err
    report = json.loads(Path("run/report.json").read_text())
    assert report["numerics"]["device"] == device
    scored = json.loads(merge("evaluate", "run", "--task", TASK, "--device", device, "--json").out)
    assert scored["models"][0]["sets"]["test"]["score"] == report["tests"]["test"]["merged"]
    ran = merge("check", *where)
    assert ran.code == 0, ran.err


REGIMES: dict[str, dict[str, Any]] = {
    "independent": {},
    "swa": {"start": 0.5},
    "late-phase": {"copies": 2, "what": "head"},
    "papa": {"variant": "two", "epochs": 1},
}


class Normed(nn.Module):
    """Pictures through convolutions with BatchNorm: channels-last, and statistics to be measured again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.two(self.norm(self.one(x)).relu()).mean((2, 3)))
        return logits


def pictures() -> Task:
    """Noisy pictures of three colours, stored as bytes."""

    def part(count: int, seed: int) -> Split:
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (count,), generator=draw)
        pixels = torch.randint(0, 200, (count, 8, 8, 3), generator=draw, dtype=torch.uint8)
        pixels[torch.arange(count), :, :, labels] += 55
        return Split.of(pixels, labels)

    return Task(
        name="pictures",
        build=lambda pool: Normed(),
        held_out=part(60, 1),
        tests={"test": part(60, 2)},
        train=part(90, 3),
        prepare=Normalise((0.5,) * 3, (0.5,) * 3),
    )


@pytest.mark.parametrize("name", REGIMES)
def test_every_regime(name: str, tmp_path: Path, device: str) -> None:
    """Mixed, erased and augmented pictures in bf16; the models are averaged, their statistics measured again."""
    torch.manual_seed(0)
    save_file(Normed().state_dict(), tmp_path / "base.safetensors")
    sweep = Sweep.of(
        {
            "learning_rate": [0.01],
            "epochs": [4],
            "batch_size": 30,
            "mixup": 0.2,
            "cutmix": 0.5,
            "erasing": 0.3,
            "augmentation": "flip",
            "label_smoothing": 0.1,
        }
    )
    regime = regimes[name](**REGIMES[name])
    made = finetune(
        pictures, tmp_path / "pool", sweep, models=2, base=tmp_path / "base.safetensors", regime=regime, device=device
    )
    assert len(made) == 2
    pool = ModelPool.open([tmp_path / "pool" / "model_*.safetensors"])
    for strategy in (merging.Uniform(), merging.Fisher(samples=8), merging.Learned(epochs=1), OutputEnsemble()):
        result = merging.merge(pool, strategy, task=pictures(), device=device, baselines=False)
        assert result.report.status == "finished"
    assert result.report.numerics is not None


def test_every_regime_is_tried() -> None:
    assert set(REGIMES) == set(regimes)


def test_a_population_goes_on_where_it_was(base: Path, tmp_path: Path, device: str) -> None:
    """Generators, optimizers and weights come back to the device: the same models as without interruption."""
    stop = after(26)  # in the third of four epochs of five steps, two models
    papa = regimes["papa"]()
    how: dict[str, Any] = {"models": 2, "base": base, "regime": papa, "device": device}
    with pytest.raises(Stopped):
        finetune(tiny_task, tmp_path / "cut", SWEEP, should_stop=stop, **how)
    assert (tmp_path / "cut" / ".population.pt").is_file()
    finetune(tiny_task, tmp_path / "cut", SWEEP, **how)
    finetune(tiny_task, tmp_path / "whole", SWEEP, **how)
    for name in ("model_00.safetensors", "model_01.safetensors"):
        cut, whole = (load_file(tmp_path / folder / name) for folder in ("cut", "whole"))
        for key, tensor in whole.items():
            torch.testing.assert_close(cut[key], tensor, rtol=1e-3, atol=1e-4)


def test_a_module_is_scored_wherever_it_is(device: str) -> None:
    """Before it has been moved, and by a run that was given it on the CPU."""
    from merging.forward.numerics import Numerics

    task, module = tiny_task(), TinyNet()
    numerics = Numerics.choose(device, module, task.held_out.inputs[0], "fp32")
    before = accuracy(TinyNet(), task, task.held_out, numerics)
    assert 0 <= before <= 1
    run = Run(module, task, HyperParameters(epochs=1, batch_size=50), numerics=numerics)
    assert module.fc1.weight.is_cuda
    module.cpu()
    run.held_out()
    assert module.fc1.weight.is_cuda

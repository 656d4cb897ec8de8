"""Computed merges by blocks: memory that grows with nothing, and bits that neither threads nor spans move."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import merging
from merging.mixing import in_blocks, sides, task_vectors
from merging.mixing.task_vectors import summed
from merging.strategies.breadcrumbs import Breadcrumbs
from merging.strategies.della import Della
from merging.strategies.nuslerp import NuSlerp
from merging.strategies.sce import Sce
from merging.strategies.ties import Ties

PEAK = """
import sys
from merging.cli.main import main
def peak():
    return int(open("/proc/self/status", encoding="utf-8").read().split("VmHWM:")[1].split()[0])
try:
    main()
finally:
    print(peak(), file=sys.stderr)
"""


def write(folder: Path, shape: tuple[int, ...], models: int, dtype: torch.dtype = torch.bfloat16) -> list[Path]:
    """A base and models near it; the last path is the base's."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    found = []
    for number in range(models):
        moved = (base + 0.1 * torch.randn(shape, generator=generator)).to(dtype)
        found.append(folder / f"model_{number}.safetensors")
        save_file({"w": moved, "b": moved[0].clone()}, found[-1])
    found.append(folder / "base.safetensors")
    save_file({"w": base.to(dtype), "b": base[0].to(dtype)}, found[-1])
    return found


def peak(paths: list[Path], output: Path) -> int:
    """MiB that a whole merge by TIES took at the most."""
    *models, base = paths
    words = [word for path in models for word in ("--models", str(path))]
    options = ["-o", "strategy.scope=tensor", "--base", str(base), "--output", str(output)]
    command = [sys.executable, "-c", PEAK, "run", "--strategy", "ties", *words, *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    return int(done.stderr.split()[-1]) // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_no_tensor(tmp_path: Path) -> None:
    """A tensor of 48 MiB in float64, in five models and a base, takes less than these, imports and all."""
    paths = write(tmp_path, (1536, 4096), 5)
    assert peak(paths, tmp_path / "out") < 5 * 48


STRATEGIES = {
    "ties": (Ties(scope="tensor", density=0.4, rescale="l1"), True),
    "della": (Della(rescale="l1"), True),
    "breadcrumbs": (Breadcrumbs(), True),
    "sce": (Sce(density=0.5), True),
    "nuslerp": (NuSlerp(), False),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_spans_and_threads_move_no_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, based = STRATEGIES[name]
    *models, base = write(tmp_path, (300, 257), 2)

    def made() -> Tensor:
        return merging.merge(models, strategy, base=base if based else None).state_dict()["w"]

    wanted = made()
    for threads, span, window in ((1, sides.BLOCK, 1), (3, 3 * sides.BLOCK, 2)):
        with monkeypatch.context() as patched:
            patched.setattr(sides, "cores", lambda threads=threads: threads)
            patched.setattr(sides, "SPAN", span)
            patched.setattr(in_blocks, "SPAN", span)
            patched.setattr(in_blocks, "_WINDOW", window)
            assert torch.equal(made().view(torch.int16), wanted.view(torch.int16))


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 40, 300])
def test_sums_are_torch_s(rows: int) -> None:
    """Where it sums vectors of the processor; a few columns that are left over it sums in another order."""
    given = np.random.default_rng(0).normal(size=(rows, 64)) * 10.0 ** np.arange(-32, 32)
    found = np.empty(64)
    summed(given, found)
    assert np.array_equal(found, torch.from_numpy(given).sum(0).numpy())
    assert task_vectors._ROWS == 16

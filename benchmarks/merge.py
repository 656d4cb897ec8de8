"""Whole merges without a model, as processes: against mergekit, against hashing and writing, and their memory.

``python -m benchmarks.merge --json [--mergekit PATH]``. Ours puts its result on the disk before it ends; the others are
followed by a sync of what they wrote, the same on all sides (``--no-sync`` leaves it out). The share that syncs have in
our time is measured by runs in which they do nothing. Eight ViT-B/32-size files of 353 MB in fp32, read once just
before each timing. Three bars: ``mergekit`` — our whole process ÷ mergekit's linear merge ≤ 0.4; ``floor`` — our
time above that of a process that imports torch ÷ (hashing all inputs on 2 threads + writing the output) ≤ 1.5;
``memory`` — peak above such a process ÷ one model ≤ 1, and within 10 % for 2, 8 and 32 models. This path does without
torch for fp32 files, so the last two are also given for the whole process (``ratio_of_whole_process``). mergekit's
``mergekit-pytorch`` comes from an environment of its own; without one that row is left out with a message.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from benchmarks.common import json_option, seconds, show

PEAK = "import sys; sys.stderr.write(open('/proc/self/status', encoding='utf-8').read().split('VmHWM:')[1].split()[0])"
MERGE = "import sys; from merging.cli.main import main\ntry: main()\nfinally:\n "
UNSYNCED = "import os; os.fsync = lambda handle: None\n"


def shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of ViT-B/32's image tower with a head for 1000 classes: 88 M numbers."""
    found: dict[str, tuple[int, ...]] = {"conv1.weight": (768, 3, 32, 32), "positional_embedding": (50, 768)}
    for block in range(12):
        name = f"resblocks.{block}"
        found |= {f"{name}.attn.in_proj_weight": (2304, 768), f"{name}.attn.in_proj_bias": (2304,)}
        found |= {f"{name}.attn.out_proj.weight": (768, 768), f"{name}.attn.out_proj.bias": (768,)}
        found |= {f"{name}.mlp.c_fc.weight": (3072, 768), f"{name}.mlp.c_fc.bias": (3072,)}
        found |= {f"{name}.mlp.c_proj.weight": (768, 3072), f"{name}.mlp.c_proj.bias": (768,)}
        found |= {f"{name}.{part}.{kind}": (768,) for part in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return found | {"proj": (768, 512), "head.weight": (1000, 512), "head.bias": (1000,)}


def write_pool(folder: Path, count: int) -> list[Path]:
    """Random models."""
    paths = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        paths.append(folder / f"model_{number}.safetensors")
        save_file({n: torch.randn(s, generator=generator) for n, s in shapes().items()}, paths[-1])
    return paths


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A process, its errors shown where it fails."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)  # noqa: S603 (our own commands)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    return done


def ours(paths: list[Path], output: Path, *more: str, synced: bool = True) -> list[str]:
    """Our merge as a process that also tells its peak memory; without syncs, what it would be if they cost nothing."""
    models = [word for path in paths for word in ("--models", str(path))]
    code = f"{'' if synced else UNSYNCED}{MERGE}{PEAK}"
    where = ["--output", str(output), "--overwrite"]
    return [sys.executable, "-c", code, "run", "--strategy", "uniform", *models, *where, *more]


def peak(command: list[str]) -> int:
    """KiB of a process's resident memory at the most."""
    return int(run(command).stderr.rsplit(maxsplit=1)[-1].split("\n")[-1])


def warm(paths: list[Path]) -> None:
    """Reads the files once, so that every timing finds them in memory."""
    buffer = bytearray(8 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def floor(paths: list[Path], output: Path) -> None:
    """Hashes all inputs on two threads, then writes as much as one of them."""

    def digest(path: Path) -> str:
        state, buffer = blake3(), bytearray(8 << 20)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                state.update(memoryview(buffer)[:count])
        return state.hexdigest()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(digest, paths))
    block = np.ones(8 << 20, dtype=np.uint8).data
    left = paths[0].stat().st_size
    with output.open("wb", buffering=0) as file:
        while left:
            left -= file.write(block[: min(left, len(block))])


def mergekit_config(paths: list[Path], folder: Path) -> Path:
    """A linear merge of equal weights."""
    models = "".join(f"  - model: {path}\n    parameters:\n      weight: 1.0\n" for path in paths)
    config = folder / "linear.yml"
    config.write_text(f"merge_method: linear\nmodels:\n{models}dtype: float32\n")
    return config


def on_disk(path: Path) -> None:
    """Waits until a file, or every file of a folder, is on the disk."""
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def timed(call: Callable[[], object], paths: list[Path], outputs: list[Path]) -> float:
    """Seconds of a call whose inputs were just read, and whose output is not there yet."""
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True) if output.is_dir() else output.unlink(missing_ok=True)
    warm(paths)
    return seconds(call)


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path), help="mergekit-pytorch, of an environment of its own.")
@click.option("--models", type=int, default=8, show_default=True)
@click.option("--count", type=int, default=7, show_default=True, help="Interleaved rounds.")
@click.option("--most", type=int, default=32, show_default=True, help="Models of the largest pool, for memory.")
@click.option("--sync/--no-sync", default=True, show_default=True, help="The same final sync on all sides.")
@json_option
def main(mergekit: Path | None, models: int, count: int, most: int, sync: bool, as_json: bool) -> None:
    """Weights-only merges: time and memory."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pool(folder, models)
        config = mergekit_config(paths, folder)

        def synced(call: Callable[[], object], output: str) -> Callable[[], object]:
            return lambda: (call(), on_disk(folder / output) if sync else None)

        calls: dict[str, Callable[[], object]] = {
            "ours": synced(lambda: run(ours(paths, folder / "out")), "out"),
            "ours, unsynced": lambda: run(ours(paths, folder / "unsynced", synced=False)),
            "float32 sums": lambda: run(ours(paths, folder / "out32", "--accumulate", "float32")),
            "import torch": lambda: run([sys.executable, "-c", "import torch"]),
            "floor": synced(lambda: floor(paths, folder / "floor"), "floor"),
        }
        if mergekit is not None and mergekit.exists():
            words = [str(mergekit), str(config), str(folder / "mk"), "--lazy-unpickle"]
            calls["mergekit"] = synced(lambda: run(words), "mk")
        else:
            click.echo("no --mergekit given: that comparison is left out", err=True)
        outputs = [folder / name for name in ("out", "unsynced", "out32", "floor", "mk")]
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(count):
            for name, call in calls.items():
                times[name].append(timed(call, paths, outputs))
        median = {name: statistics.median(values) for name, values in times.items()}

        def ratios(top: str, below: str) -> list[float]:
            rest = times["import torch"] if below == "floor" else [0.0] * count
            return sorted((a - r) / b for a, b, r in zip(times[top], times[below], rest, strict=True))

        for bar, below in (("mergekit", "mergekit"), ("floor", "floor")):
            if below in times:
                quotients = ratios("ours", below)
                rows.append(
                    {
                        "bar": bar,
                        "models": models,
                        "ratio": statistics.median(quotients),
                        "range": [quotients[0], quotients[-1]],
                        "seconds": median["ours"],
                        "compared_seconds": median[below],
                        "import_torch_seconds": median["import torch"],
                        "float32_seconds": median["float32 sums"],
                        "fsync_share": 1 - median["ours, unsynced"] / median["ours"],
                        "same_sync": sync,
                    }
                )
        quotients = [a / b for a, b in zip(times["ours"], times["floor"], strict=True)]
        rows[-1]["ratio_of_whole_process"] = statistics.median(quotients)
        if "mergekit" in times:
            calls["ours"]()
            merged = load_file(folder / "out" / "model.safetensors")
            theirs = load_file(next((folder / "mk").glob("*.safetensors")))
            rows[0]["largest_difference"] = max(float((merged[n] - theirs[n]).abs().max()) for n in merged)
        base = peak([sys.executable, "-c", f"import torch; {PEAK}"])
        size = paths[0].stat().st_size / 1024
        for number in (2, 8, most):
            many = [paths[k % models] for k in range(number)]
            links = []
            for k, path in enumerate(many):  # the same bytes under other names: disk is not what is measured
                links.append(folder / f"link_{number}_{k}.safetensors")
                os.link(path, links[-1])
            warm(links)
            found = peak(ours(links, folder / "out"))
            took = statistics.median(seconds(lambda links=links: run(ours(links, folder / "out"))) for _ in range(3))
            rows.append(
                {
                    "bar": "memory",
                    "models": number,
                    "ratio": (found - base) / size,
                    "ratio_of_whole_process": found / size,
                    "peak_mib": found / 1024,
                    "import_torch_mib": base / 1024,
                    "model_mib": size / 1024,
                    "seconds": took,
                }
            )
    show("merge", rows, as_json=as_json)


if __name__ == "__main__":
    main()

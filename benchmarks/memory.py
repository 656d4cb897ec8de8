"""Peak memory of a search, for pools of 2 and 6 models of ViT-B/32's size.

``python -m benchmarks.memory --json``. Each run is a process of its own; its peak is the kernel's VmHWM less the file
pages that it maps (RssFile), which the kernel takes back when it needs them, sampled every 5 ms; the whole peak is
printed too. Bar: ratio = peak / (imports + data + 4 × model + cache limit + a batch's activations) ≤ 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.common import json_option, show

CACHE = 64
"""MiB for activations of earlier passes."""


def status(*fields: str) -> int:
    """Bytes of this process, by fields of /proc/self/status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return sum(int(lines[field].split()[0]) * 1024 for field in fields)


class Peak(threading.Thread):
    """Samples anonymous memory until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.running = 0, True

    def run(self) -> None:
        """Samples."""
        while self.running:
            self.bytes = max(self.bytes, status("RssAnon", "RssShmem"))
            time.sleep(0.005)


def child(folder: Path, images: int, *, search: bool) -> dict[str, int]:
    """In a process of its own: imports, then a bare forward pass, or a search over the pool in the folder."""
    import torch

    import merging
    from benchmarks.common import evaluator, trials
    from merging.data.images import normalise
    from merging.models.catalogue import model_source
    from merging.models.clip import ClipClassifier
    from merging.plugins.task import Split, Task

    del ClipClassifier
    source = model_source("open_clip:ViT-B-32-quickgelu")
    baseline = status("RssAnon", "RssShmem")
    pixels = torch.zeros((images, 224, 224, 3), dtype=torch.uint8)
    task = Task(
        name="memory",
        build=source.build,
        held_out=Split.of(pixels, torch.arange(images)),
        prepare=normalise(source.transform()),
    )
    if not search:
        module = source.module(1000).eval()
        batch = task.prepare(pixels[:32])
        before = status("RssAnon", "RssShmem")
        peak = Peak()
        peak.start()
        with torch.inference_mode():
            for _ in range(3):
                module(batch)
        peak.running = False
        peak.join()
        return {"baseline": baseline, "activations": peak.bytes - before, "data": pixels.nbytes}
    peak = Peak()
    peak.start()
    pool = merging.ModelPool.open([folder])
    made = evaluator(pool, task, merging.ClipC8(), cache_memory=CACHE << 20)
    problem = [merging.Recipe.single(ingredient, made.keys.partition) for ingredient in pool.ingredients]
    for recipe in problem:
        made.evaluate(recipe)
    made.evaluate(merging.Recipe.mean(pool.ingredients, made.keys.partition))
    trial = trials(made)
    for _ in range(4):
        trial()
    peak.running = False
    peak.join()
    return {"baseline": baseline, "peak": peak.bytes, "whole_peak": status("VmHWM")}


def spawn(folder: Path, images: int, *, search: bool) -> dict[str, int]:
    """Runs :func:`child`."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(folder), "--images", str(images)]
    command += ["--search"] if search else []
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)  # noqa: S603
    found: dict[str, int] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--images", type=int, default=64, show_default=True)
@json_option
@click.option("--child", "folder", hidden=True)
@click.option("--search", is_flag=True, hidden=True)
def main(images: int, as_json: bool, folder: str | None, search: bool) -> None:
    """Peak memory against what it is made of."""
    if folder is not None:
        click.echo(json.dumps(child(Path(folder), images, search=search)))
        return
    from benchmarks.common import vit_b32

    rows: list[dict[str, Any]] = []
    for models in (2, 6):
        with tempfile.TemporaryDirectory() as place:
            pool, _ = vit_b32(Path(place), 1, models=models)
            size = sum(checkpoint.path.stat().st_size for checkpoint in pool.checkpoints) // models
            del pool
            bare, found = spawn(Path(place), images, search=False), spawn(Path(place), images, search=True)
        allowed = found["baseline"] + bare["data"] + 4 * size + (CACHE << 20) + bare["activations"]
        parts = {"imports": found["baseline"], "data": bare["data"], "model": size, "activations": bare["activations"]}
        mib = {
            name: round(value / 2**20)
            for name, value in (parts | {"peak": found["peak"], "with_files": found["whole_peak"]}).items()
        }
        rows.append({"models": models, "ratio": found["peak"] / allowed, "cache_limit": CACHE, **mib, "unit": "MiB"})
    show("memory", rows, as_json=as_json)


if __name__ == "__main__":
    main()

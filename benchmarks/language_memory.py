"""Peak memory of a search over a Llama of 200 M random parameters, whose checkpoints and passes are in bf16.

``python -m benchmarks.language_memory --json``. Each run is a process of its own; its peak is its anonymous memory,
without the file pages that it maps, sampled every 5 ms. Bar: ratio = peak / (imports + data + three checkpoints: the
model and both ends + cache limit + a batch's activations) ≤ 1.15; freed memory that the C library keeps is no part
of it. With ``--precision fp32`` the model alone is in fp32.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.common import json_option, show
from benchmarks.memory import CACHE, Peak, status


def child(folder: Path, size: str, precision: str, *, search: bool) -> dict[str, int]:
    """In a process of its own: imports, then bare forward passes, or a search over the pool in the folder."""
    import torch
    import transformers.models.llama.modeling_llama

    import merging
    from benchmarks.common import evaluator, trials
    from benchmarks.random_llama import SIZES, documents, task_of
    from merging.machine import give_back
    from merging.models.catalogue import model_source
    from merging.models.causal_scorer import CausalScorer
    from merging.partitioners.block import Block

    del transformers, CausalScorer
    source = model_source(f"transformers:{folder / 'architecture'}")
    task = task_of(source, documents(8, int(SIZES[size]["vocab_size"]), 100, 128))
    baseline = status("RssAnon", "RssShmem")
    if not search:
        module = source.module().eval().to(torch.bfloat16 if precision == "bf16" else torch.float32)
        batch = task.held_out.sequences.collated()
        give_back()  # or activations would go where the module was in fp32
        before = status("RssAnon", "RssShmem")
        peak = Peak()
        peak.start()
        with torch.inference_mode():
            for _ in range(2):
                module(batch)
        peak.running = False
        peak.join()
        return {"baseline": baseline, "activations": peak.bytes - before, "data": task.held_out.sequences.nbytes}
    peak = Peak()
    peak.start()
    pool = merging.ModelPool.open([folder / "models"])
    made = evaluator(pool, task, Block(), precision=precision, cache_memory=CACHE << 20)
    stages = {"opened": peak.bytes}
    singles = [merging.Recipe.single(ingredient, made.keys.partition) for ingredient in pool.ingredients]
    for recipe in (*singles, merging.Recipe.mean(pool.ingredients, made.keys.partition)):
        made.evaluate(recipe)
    stages["evaluated"] = peak.bytes
    trial = trials(made)
    for _ in range(2):
        trial()
    stages["searched"] = peak.bytes
    made.record(singles[0])
    peak.running = False
    peak.join()
    return {"baseline": baseline, "peak": peak.bytes, "whole_peak": status("VmHWM"), **stages}


def spawn(folder: Path, size: str, precision: str, *, search: bool) -> dict[str, int]:
    """Runs :func:`child`."""
    command = [sys.executable, "-m", "benchmarks.language_memory", "--child", str(folder), "--size", size]
    command += ["--precision", precision, *(["--search"] if search else [])]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)  # noqa: S603
    found: dict[str, int] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--size", default="200 M", show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="bf16", show_default=True)
@json_option
@click.option("--child", "place", hidden=True)
@click.option("--search", is_flag=True, hidden=True)
def main(size: str, precision: str, as_json: bool, place: str | None, search: bool) -> None:
    """Peak memory against what it is made of."""
    if place is not None:
        click.echo(json.dumps(child(Path(place), size, precision, search=search)))
        return
    import torch

    from benchmarks.random_llama import llamas

    with tempfile.TemporaryDirectory() as made:
        pool, _ = llamas(Path(made), size, torch.bfloat16)
        one = pool.checkpoints[0].path.stat().st_size
        del pool
        bare = spawn(Path(made), size, precision, search=False)
        found = spawn(Path(made), size, precision, search=True)
    models = 3 if precision == "bf16" else 4  # the model in fp32 is two of them
    allowed = found["baseline"] + bare["data"] + models * one + (CACHE << 20) + bare["activations"]
    parts = {"imports": found["baseline"], "checkpoint": one, "activations": bare["activations"]}
    mib = {name: round(value / 2**20) for name, value in (parts | found).items() if name != "baseline"}
    row: dict[str, Any] = {"size": size, "precision": precision, "ratio": found["peak"] / allowed}
    show("language_memory", [{**row, "cache_limit": CACHE, **mib, "unit": "MiB"}], as_json=as_json)


if __name__ == "__main__":
    main()

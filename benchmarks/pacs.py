"""Three pools of SqueezeNets on PACS, and every method on each of them: the table of docs/results/pacs.md.

``python -m benchmarks.pacs --output DIR`` trains the pools by ``merge finetune`` and compares the methods by ``merge
benchmark``. Both go on where they were interrupted, and so does this. ``--summary DIR…`` only reads finished
benchmarks. MERGING_TEST_DATA names the folder of pacs96.npz and of the pretrained backbone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.common import data_folder
from merging.benchmarking.results import Benchmark
from merging.values.report import number

SEEDS = (0, 100, 200)
"""Of the pools; run k of a pool trains with seed + k."""
MODELS = 24
SWEEP = """\
learning_rate = { low = 1e-4, high = 6e-4, log = true }
weight_decay = [0.0, 0.01, 0.1]
epochs = [6, 9, 12]
batch_size = 32
augmentation = ["flip", "crop", "rand-m5-mstd0.5"]
mixup = [0.0, 0.2]
label_smoothing = [0.0, 0.1]
"""
METHODS = (
    "best,uniform,greedy,random-greedy=greedy,manifoldmix,manifoldmix-loose=manifoldmix,learned,wise-ft,"
    "wise-greedy=wise-ft,fisher,model-stock,ensemble,greedy-ensemble"
)
OPTIONS = ("random-greedy.order=random", "manifoldmix-loose.tau=0.97", "wise-greedy.inner=greedy", "fisher.samples=256")
COLUMNS = ("held-out", "test", "cartoon", "sketch", "average")


def run(output: Path, seed: int, methods: str, jobs: int | None) -> Path:
    """One pool and its benchmark; what is there is kept."""
    data = data_folder().absolute()
    output.mkdir(parents=True, exist_ok=True)
    task, sweep, pool = output / "task.toml", output / "sweep.toml", output / f"pool_{seed}"
    task.write_text(f'[task]\nname = "pacs"\ndata = "{data / "pacs96.npz"}"\n')
    sweep.write_text(SWEEP)
    backbone = data / "squeezenet1_1_imagenet_backbone.safetensors"
    train = ["finetune", "--task", str(task), "--base", str(backbone), "--models", str(MODELS), "--sweep", str(sweep)]
    _merge(*train, "--seed", str(seed), "--output", str(pool), *(["--jobs", str(jobs)] if jobs else []))
    compare = ["benchmark", "--task", str(task), "--models", f"{pool}/model_*.safetensors", "--strategies", methods]
    compare += ["--base", str(pool / "base.safetensors"), "--partitioner", "block", "--budget", "60"]
    compare += ["--against", "manifoldmix"]
    for option in OPTIONS:
        compare += ["-o", option]
    _merge(*compare, "--output", str(output / f"bench_{seed}"))
    return output / f"bench_{seed}"


def _merge(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "merging", *words], check=False)  # noqa: S603 (our own command)
    if done.returncode:
        raise SystemExit(done.returncode)


def summary(folders: list[Path]) -> str:
    """Markdown: means over pools, then differences from each reference, pool by pool."""
    found = [Benchmark.read(folder / "benchmark.json").to_json() for folder in folders]
    by_label = [{row["label"]: row for row in data["rows"] if row["status"] == "finished"} for data in found]
    labels = [row["label"] for row in found[0]["rows"] if all(row["label"] in rows for rows in by_label)]
    lines = [
        "| method | " + " | ".join(COLUMNS) + " | models in it | passes a sample | evaluations | forward-equivalents |",
        "|---" * (len(COLUMNS) + 5) + "|",
    ]
    for label in labels:
        rows = [rows[label] for rows in by_label]
        cells = [_mean([_score(row, column) for row in rows]) for column in COLUMNS]
        costs = [statistics.mean(row[key] for row in rows) for key in ("models", "inference_cost")]
        work = [statistics.mean(row[key] for row in rows) for key in ("evaluations", "forward_equivalents")]
        cells += [f"{value:.0f}" for value in (*costs, *work)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    tested = {verdict["reference"] for rows in by_label for row in rows.values() for verdict in row["verdicts"]}
    for reference in (name for name in ("best", "greedy", "manifoldmix") if name in tested):
        lines += [
            "",
            f"Difference from `{reference}` in points, pool by pool; bold: significant (Holm, in its pool and family):",
            "",
        ]
        lines += ["| method | " + " | ".join(COLUMNS[1:]) + " |", "|---" * len(COLUMNS) + "|"]
        for label in labels:
            if label != reference:
                cells = [_differences([rows[label] for rows in by_label], reference, c) for c in COLUMNS[1:]]
                lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score(row: dict[str, Any], column: str) -> float:
    if column == "held-out":
        return float(row["held_out"])
    return float(row["shifted"] if column == "average" else row["tests"][column])


def _mean(values: list[float]) -> str:
    spread = f" ±{100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{number(statistics.mean(values), percent=True)}{spread}"


def _differences(rows: list[dict[str, Any]], reference: str, column: str) -> str:
    cells = []
    for row in rows:
        wanted = "average of shifts" if column == "average" else column
        told = (v for v in row["verdicts"] if (v["reference"], v["set"], v["extra"]) == (reference, wanted, False))
        found = next(told, {"difference": None, "verdict": "not tested"})
        text = "–" if found["difference"] is None else f"{100 * found['difference']:+.2f}"
        cells.append(f"**{text}**" if found["verdict"] in ("better", "worse") else text)
    return ", ".join(cells)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Folder for pools and benchmarks.")
@click.option("--pools", type=int, default=len(SEEDS), show_default=True, help="How many.")
@click.option("--methods", default=METHODS, help="As --strategies of merge benchmark.")
@click.option("--jobs", type=int, help="Models that are trained at once.")
@click.option("--summary", "finished", multiple=True, type=click.Path(path_type=Path), help="Only read; repeatable.")
def main(output: Path | None, pools: int, methods: str, jobs: int | None, finished: tuple[Path, ...]) -> None:
    """Trains, compares, and prints the tables of docs/results/pacs.md."""
    if not finished and output is None:
        raise click.UsageError("give --output DIR, or --summary DIR of finished benchmarks")
    folders = list(finished)
    if output is not None and not finished:
        folders = [run(output, seed, methods, jobs) for seed in SEEDS[:pools]]
    click.echo(summary(folders))


if __name__ == "__main__":
    main()

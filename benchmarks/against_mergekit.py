"""Whole merges of each of mergekit's methods, ours and mergekit's in turns: time, CPU time and memory.

``python -m benchmarks.against_mergekit --mergekit PATH --json``; PATH is ``mergekit-pytorch`` of an environment of its
own. The files are of one block of a Llama of 7 billion parameters (404 MB each, bfloat16), read once just before each
run; both programs write what they read, and what is written is synced. Processes are timed from start to end, imports
included. mergekit gets two threads, ``--lazy-unpickle`` and the dtype of the files (it computes in that dtype then, its
fastest way); the parameters are those of ``benchmarks.parity``, so that both do the same. A row: medians of the
ratios of pairs. Bars: seconds ≤ 0.4, memory below 1.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file

from benchmarks.common import json_option, show
from benchmarks.merge import on_disk, warm
from benchmarks.parity import CASES, Case

METHODS = (
    "linear",
    "slerp",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "model_stock",
    "karcher",
    "multislerp",
    "nuslerp",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
)
HIDDEN, INNER = 4096, 11008
PEAK = (
    "import sys; said = open('/proc/self/status', encoding='utf-8').read().split('VmHWM:')[1].split()[0]; "
    "sys.stderr.write('\\n' + said)"
)
OURS = f"import sys; from merging.cli.main import main\ntry: main()\nfinally:\n {PEAK}"
THEIRS = f"import sys; from mergekit.scripts.merge_raw_pytorch import main\ntry: main()\nfinally:\n {PEAK}"


def shapes(hidden: int = HIDDEN, inner: int = INNER) -> dict[str, tuple[int, ...]]:
    """Tensors of one block."""
    block = "model.layers.0"
    found: dict[str, tuple[int, ...]] = {f"{block}.self_attn.{n}_proj.weight": (hidden, hidden) for n in "qkvo"}
    found |= {f"{block}.mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
    found |= {f"{block}.mlp.down_proj.weight": (hidden, inner)}
    return found | {f"{block}.{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}


def write_pool(folder: Path, models: int, sizes: dict[str, tuple[int, ...]]) -> None:
    """A random base, and models near it."""
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in sizes.items()}
    save_file({name: tensor.bfloat16() for name, tensor in base.items()}, folder / "base.safetensors")
    for number in range(models):
        moved = {n: (t + 0.002 * torch.randn(t.shape, generator=generator)).bfloat16() for n, t in base.items()}
        save_file(moved, folder / f"model_{number}.safetensors")


@dataclass(frozen=True)
class Measured:
    """What one process took.

    Attributes:
        seconds: From its start to its end.
        cpu: User and system seconds of all its threads.
        peak: MiB that were resident at the most, pages of mapped files included.
        own: MiB at the most without pages of mapped files, sampled.
    """

    seconds: float
    cpu: float
    peak: float
    own: float


def measured(command: Sequence[str], output: Path) -> Measured:
    """Runs a process that tells its VmHWM last.

    Raises:
        ClickException: it failed.
    """
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}
    own = 0
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)  # noqa: S603 (our own commands)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            own = max(own, anonymous(process.pid))
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == 0:
            on_disk(output)
        seconds = time.perf_counter() - start
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if process.returncode:
        raise click.ClickException(f"{' '.join(command[:3])} failed:\n{text[-2000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, int(text.split()[-1]) / 1024, own / 1024)


def anonymous(process: int) -> int:
    """KiB of a process's memory that are no pages of files; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))


def ours(case: Case, folder: Path, output: Path) -> list[str]:
    """Our command."""
    words = [sys.executable, "-c", OURS, "run", "--strategy", case.strategy, "--output", str(output), "--overwrite"]
    for number in range(case.models):
        words += ["--models", str(folder / f"model_{number}.safetensors")]
    if case.base and case.base != "model_0":
        words += ["--base", str(folder / "base.safetensors")]
    for name, value in case.ours().items():
        values = value if isinstance(value, list) else [value]
        words += [word for each in values for word in ("-o", f"strategy.{name}={_written(each)}")]
    return words


def theirs(case: Case, folder: Path, output: Path, python: Path) -> list[str]:
    """Mergekit's command."""
    config = case.config(folder, "bfloat16") | {"dtype": "bfloat16"}
    file = output.parent / f"{output.name}.yml"
    file.write_text(json.dumps(config))
    flags = ["--lazy-unpickle", "--num-threads", "2", "--quiet", "--random-seed", "0"]
    return [str(python), "-c", THEIRS, str(file), str(output), *flags]


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def row(pairs: Sequence[tuple[Measured, Measured]], name: str) -> dict[str, Any]:
    """Medians of the pairs' ratios, ours ÷ theirs, and of what both took."""
    found: dict[str, Any] = {"method": name, "pairs": len(pairs)}
    for field in ("seconds", "cpu", "peak", "own"):
        own, other_own = ([getattr(pair[k], field) for pair in pairs] for k in (0, 1))
        ratios = [one / other for one, other in zip(own, other_own, strict=True)]
        found |= {f"{field}_ratio": statistics.median(ratios), f"{field}_range": [min(ratios), max(ratios)]}
        found |= {field: statistics.median(own), f"mergekit_{field}": statistics.median(other_own)}
    return found


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--only", multiple=True, help="A method; may be given several times.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the files lie, or are written; stays.")
@click.option("--alone", is_flag=True, help="Ours alone.")
@json_option
def main(mergekit: Path, rounds: int, only: tuple[str, ...], folder: Path | None, alone: bool, as_json: bool) -> None:
    """A row a method, against the live mergekit."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if folder is None:
            folder = Path(name)
        if not (folder / "base.safetensors").exists():
            write_pool(folder, 3, shapes())
        paths = sorted(folder.glob("*.safetensors"))
        for method in only or METHODS:
            case, pairs = CASES[method], []
            for _ in range(rounds):
                both = []
                outputs = (Path(name) / "ours", Path(name) / "mergekit")
                commands = [
                    ours(case, folder, outputs[0]),
                    theirs(case, folder, outputs[1], mergekit.parent / "python"),
                ]
                for command, output in zip(commands[: 1 if alone else 2], outputs, strict=False):
                    warm(paths)
                    both.append(measured(command, output))
                pairs.append((both[0], both[-1]))
            rows.append(row(pairs, method))
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}, file=sys.stderr)
    show("against_mergekit", rows, as_json=as_json)


if __name__ == "__main__":
    main()

"""Seconds of the first minutes with the tool: installing, importing, help, a first merge, the demo.

``python -m benchmarks.first_use --json`` in a checkout. Each is a process of its own; its seconds are the clock's and
the processor's (with its children's), medians of ``--runs`` in turns. ``--install WHEEL`` also makes a virtual
environment and installs the wheel there, once without its dependencies and once with them, from wherever pip takes
packages. ``--peer`` names another program's command to be timed in the same turns, such as ``'mergekit-yaml --help'``.
"""

from __future__ import annotations

import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import click

from benchmarks.common import json_option, show

ROOT = Path(__file__).parents[1]
POOL = ROOT / "merging" / "tasks" / "digits_pool"
DEMO = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1]  # type: ignore[index]
MERGE = [sys.executable, "-m", "merging"]
QUICK = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import merging": [sys.executable, "-c", "import merging"],
    "merge --help": [*MERGE, "--help"],
    "merge run --help": [*MERGE, "run", "--help"],
    "merge list": [*MERGE, "list"],
    "merge run --strategy uniform (14 files, weights only)": [
        *(*MERGE, "run", "--strategy", "uniform", "--models", str(POOL / "model_*.safetensors")),
        *("--output", "uniform", "--overwrite"),
    ],
}
"""What takes a second at most, timed many times."""
LONG = {
    "merge run --strategy greedy (built-in pool)": [*MERGE, "run", "--strategy", "greedy", "--output", "greedy"],
    "make demo": ["sh", "-ec", DEMO],
}
"""What a newcomer waits for, timed once a run."""


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Runs a command in a folder, where nothing is remembered from earlier commands.

    Returns:
        Seconds of the clock, and of the processor: the process's own and its children's.

    Raises:
        click.ClickException: the command failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = os.environ | {"PATH": path, "MERGING_REMEMBER": "0", "MERGING_CACHE": str(folder / "cache"), "BROWSER": ""}
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (our own commands, and what the user names)
        words, cwd=folder, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None  # noqa: S101 (for the type checker)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{shlex.join(words)}: {said.decode('utf-8', 'replace')[-300:]}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def installed(wheel: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Installs a wheel into a new virtual environment.

    Returns:
        Seconds of both clocks, and MiB of what was installed.
    """
    home = folder / "env"
    venv.create(home, with_pip=True, clear=True)
    clock, processor = timed([str(home / "bin/python"), "-m", "pip", "install", "-q", *more, str(wheel)], folder)
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return {"seconds": round(clock, 1), "processor": round(processor, 1), "MiB": round(size / 2**20)}


@click.command(help=__doc__)
@click.option("--runs", default=7, show_default=True, help="Times that each quick command is run.")
@click.option("--long-runs", default=1, show_default=True, help="Times that each long one is run.")
@click.option("--install", "wheel", type=click.Path(exists=True, path_type=Path), help="Wheel to be installed, too.")
@click.option("--peer", "peers", multiple=True, help="Another program's command; repeatable.")
@json_option
def main(runs: int, long_runs: int, wheel: Path | None, peers: tuple[str, ...], *, as_json: bool) -> None:
    """Times all of them."""
    quick = QUICK | {peer: shlex.split(peer) for peer in peers}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in quick | LONG}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for words in quick.values():
            timed(words, folder)  # bytecode and files are in memory from here on
        for _ in range(runs):
            for name, words in quick.items():
                seen[name].append(timed(words, folder))
        for _ in range(long_runs):
            for name, words in LONG.items():
                with tempfile.TemporaryDirectory(dir=place) as own:
                    seen[name].append(timed(words, Path(own)))
        if wheel is not None:
            mib = round(wheel.stat().st_size / 2**20, 1)
            for more in (["--no-deps"], []):
                row = installed(wheel.absolute(), folder, *more)
                rows.append({"command": " ".join(["pip install", *more, "WHEEL"]), **row, "wheel MiB": mib})
    for name, times in seen.items():
        if times:
            clock, processor = (round(statistics.median(each), 2) for each in zip(*times, strict=True))
            rows.append({"command": name, "seconds": clock, "processor": processor, "runs": len(times)})
    show("first use", rows, as_json=as_json)


if __name__ == "__main__":
    main()

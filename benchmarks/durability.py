"""Kills, power cuts and two writers at once: what is lost, over many of each.

``python -m benchmarks.durability`` prints the figures; ``--output docs/durability.json`` keeps them. Each case is one
of ``run``, ``run --overwrite``, ``apply``, ``finetune`` and ``benchmark`` on a tiny problem, in a fork of this process.

- *kills*: SIGKILL at a random moment, then the command that goes on; the result must be that of an undisturbed one, and
  a report that is there must be that of the model beside it.
- *cuts*: on an ext4 image that is mounted, the file behind it is copied at once after the command has said that it is
  finished, or at a random moment, and the copy is mounted: what the disk has after a power cut. Needs root and loop
  devices.
- *writers*: two at once, into one folder; one of them is refused, or both have the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from merging.benchmarking.reading import read_folder
from merging.cli import main as command_line
from merging.errors import MergingError
from merging.storage.checkpoint import Checkpoint
from merging.testing import tiny_pool

TASK = "python:merging.testing.fixtures:tiny_task"
SEARCH = ["--task", TASK, "--partitioner", "layer", "--budget", "40", "--optimizer", "random"]
CASES = ("run", "overwrite", "apply", "finetune", "benchmark")


class Lost(Exception):
    """Something that was said to be there is not, or is something else."""


@dataclass
class Tried:
    """What happened to one case."""

    times: int = 0
    interrupted: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One command, how it goes on, and what is left of it.

    Args:
        name: one of :data:`CASES`.
        pool: the tiny pool.
    """

    name: str
    pool: Path

    def prepare(self, folder: Path) -> None:
        """What is there before."""
        folder.mkdir(exist_ok=True)
        if self.name in ("overwrite", "apply"):
            call(self._run("uniform", "out" if self.name == "overwrite" else "source"), folder)
            subprocess.run(["sync", "-f", folder], check=True)  # noqa: S603, S607

    def begin(self) -> list[str]:
        """The command."""
        base = str(self.pool / "base.safetensors")
        if self.name in ("run", "overwrite"):
            more = ["-o", "strategy.tau=0.9", *(["--overwrite"] if self.name == "overwrite" else [])]
            return [*self._run("manifoldmix", "out"), *more]
        if self.name == "apply":
            return ["apply", "source", "--output", "model.safetensors", "--overwrite"]
        if self.name == "finetune":
            return [
                "finetune",
                "--task",
                TASK,
                "--base",
                base,
                "--models",
                "3",
                "--jobs",
                "1",
                "--set",
                "epochs=3",
                "--output",
                "out",
            ]
        return ["benchmark", *self._models(), *SEARCH, "--strategies", "best,uniform,manifoldmix", "--output", "out"]

    def go_on(self, folder: Path) -> list[str]:
        """The command after an interruption, as a user would give it."""
        journal = folder / "out/events.jsonl"
        if self.name in ("run", "overwrite") and journal.is_file():
            if journal.read_bytes().startswith(b'{"event":"run"') and b"\n" in journal.read_bytes():
                return ["run", "--resume", "out", "--trust-code"]
            return [*self.begin(), *(["--overwrite"] if self.name == "run" else [])]
        return self.begin()

    def result(self, folder: Path) -> dict[str, Any]:
        """All that must be the same however often it was interrupted."""
        if self.name == "apply":
            return {"model": (folder / "model.safetensors").read_bytes()}
        if self.name == "benchmark":
            found = read_folder(folder / "out")
            return {row.label: (row.held_out, row.tests, row.ingredients) for row in found.rows}
        names = ["recipe.json"] if self.name != "finetune" else []
        files = [*(folder / "out").glob("*.safetensors"), *(folder / "out" / name for name in names)]
        return {file.name: file.read_bytes() for file in files}

    def check(self, folder: Path) -> None:
        """Raises Lost where something is described as what it is not."""
        report, pool = folder / "out/report.json", folder / "out/finetune.json"
        if report.is_file():
            told = json.loads(report.read_bytes())
            if Checkpoint(folder / "out/model.safetensors").hash != told["content_hash"]:
                raise Lost("the report is of another model")
            if missing := [name for name in told["files"] if not (folder / "out" / name).exists()]:
                raise Lost(f"the report names {missing[0]}, which is not there")
        known = json.loads(pool.read_bytes())["base"] if pool.is_file() else None
        if known is not None and Checkpoint(folder / "out/base.safetensors").hash != known:
            raise Lost("the record is of another base")

    def _run(self, strategy: str, output: str) -> list[str]:
        return ["run", *self._models(), *SEARCH, "--strategy", strategy, "--output", output]

    def _models(self) -> list[str]:
        return ["--models", str(self.pool / "model_*.safetensors")]


def begin(arguments: Sequence[str], folder: Path) -> int:
    """Starts ``merge`` in a fork, in a folder; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(folder)
        sys.stdout = sys.stderr = said = open("said", "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.argv = ["merge", *arguments]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        command_line.main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    finally:
        os._exit(70)


def end(child: int) -> int:
    """Waits; returns the exit code, or the negative signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def call(arguments: Sequence[str], folder: Path) -> None:
    """Runs ``merge`` to its end.

    Raises:
        Lost: it fails.
    """
    code = end(begin(arguments, folder))
    if code:
        said = (folder / "said").read_text("utf-8").strip().splitlines()
        raise Lost(f"merge {arguments[0]} ended with {code}: {said[-1] if said else ''}")


def undisturbed(case: Case, folder: Path) -> tuple[dict[str, Any], float]:
    """The result, and the seconds that it takes."""
    case.prepare(folder)
    began = time.perf_counter()
    call(case.begin(), folder)
    return case.result(folder), time.perf_counter() - began


def finished(case: Case, folder: Path, expected: dict[str, Any]) -> None:
    """Goes on in a folder after an interruption.

    Raises:
        Lost: it cannot, or ends with something else.
    """
    case.check(folder)
    call(case.go_on(folder), folder)
    case.check(folder)
    if case.result(folder) != expected:
        raise Lost("the result is another one")
    left = [path.name for path in folder.rglob(".*") if path.name.startswith((".writing-", ".replacing"))]
    if left:
        raise Lost(f"{left[0]} was left")


def kill(case: Case, folder: Path, expected: dict[str, Any], after: float) -> bool:
    """Kills the command after some seconds and goes on; returns whether it was killed before its end.

    Raises:
        Lost: something was.
    """
    case.prepare(folder)
    child = begin(case.begin(), folder)
    time.sleep(after)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    killed = end(child) < 0
    finished(case, folder, expected)
    return killed


def can_cut() -> bool:
    """Whether power cuts can be tried here: root, loop devices, ext4's tools."""
    tools = ("losetup", "mkfs.ext4", "mount", "umount", "cp")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)):
        return False
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        ask = ["losetup", "-f", "--show", file.name]
        loop = subprocess.run(ask, capture_output=True, encoding="utf-8", check=False)  # noqa: S603
        if loop.returncode == 0:
            subprocess.run(["losetup", "-d", loop.stdout.strip()], check=False)  # noqa: S603, S607
        return loop.returncode == 0


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """An image as a file system."""
    place.mkdir()
    run = lambda *words: subprocess.run(words, check=True, capture_output=True, encoding="utf-8").stdout.strip()  # noqa: E731, S603
    loop = run("losetup", "-f", "--show", "--direct-io=on", str(image))
    try:
        run("mount", "-o", "commit=60", loop, str(place))  # nothing reaches the disk by itself meanwhile
        try:
            yield place
        finally:
            run("umount", str(place))
    finally:
        run("losetup", "-d", loop)


def cut(case: Case, work: Path, expected: dict[str, Any], after: float | None) -> bool:
    """Cuts the power once the command is finished, or after some seconds; returns whether it was finished.

    Raises:
        Lost: what was said to be finished is not there, or it cannot be gone on with.
    """
    image, copy = work / "disk", work / "disk.cut"
    with image.open("wb") as file:
        file.truncate(192 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)  # noqa: S603, S607
    with mounted(image, work / "before") as place:
        case.prepare(place)
        subprocess.run(["sync", "-f", place], check=True)  # noqa: S603, S607
        child = begin(case.begin(), place)
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = end(child)
        if code > 0:
            raise Lost(f"merge {case.name} ended with {code}")
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)  # noqa: S603, S607
    with mounted(copy, work / "after") as place:
        if code == 0:
            case.check(place)
            if case.result(place) != expected:
                raise Lost("what was finished is another one after the cut")
            names = {"run": "report.json", "overwrite": "report.json", "benchmark": "benchmark.html"}
            if case.name in names and not (place / "out" / names[case.name]).stat().st_size:
                raise Lost("the report is empty after the cut")
        else:
            finished(case, place, expected)
    return code == 0


def two(case: Case, folder: Path, expected: dict[str, Any], apart: float) -> bool:
    """Two at once; returns whether one was refused.

    Raises:
        Lost: neither has the result, or one is refused without a reason.
    """
    case.prepare(folder)
    (folder / "other").mkdir()
    first = begin(case.begin(), folder)
    time.sleep(apart)
    second = begin(case.begin(), folder)
    codes = [end(first), end(second)]
    refused = codes.count(2)
    said = (folder / "said").read_text("utf-8")
    if sorted(codes) not in ([0, 0], [0, 2]):
        raise Lost(f"two at once ended with {codes}: {said.splitlines()[-1]}")
    if refused and not any(words in said for words in ("another run is writing", "holds another run")):
        raise Lost(f"refused for another reason: {said.splitlines()[-1]}")
    case.check(folder)
    if case.result(folder) != expected:
        raise Lost("the result of two at once is another one")
    return bool(refused)


def campaign(
    name: str,
    times: int,
    pool: Path,
    chance: random.Random,
    attempt: Callable[[Case, Path, dict[str, Any], float], bool],
) -> dict[str, Any]:
    """Tries every case so many times; returns the figures."""
    found: dict[str, Any] = {}
    for case in (Case(case, pool) for case in CASES):
        tried = Tried()
        with tempfile.TemporaryDirectory() as place:
            expected, seconds = undisturbed(case, Path(place) / "undisturbed")
        for _ in range(times):
            with tempfile.TemporaryDirectory() as place:
                tried.times += 1
                try:
                    work = Path(place) / "work"
                    work.mkdir()
                    tried.interrupted += attempt(case, work, expected, chance.uniform(0, seconds))
                except (Lost, MergingError, OSError) as error:
                    tried.lost.append(f"{type(error).__name__}: {error}")
        found[case.name] = {"times": tried.times, "interrupted": tried.interrupted, "lost": tried.lost}
        click.echo(
            f"{name:8} {case.name:10} {tried.times:4} times, {tried.interrupted:4} {WORDS[name]}, "
            f"{len(tried.lost)} lost {tried.lost[:1] or ''}"
        )
    return found


WORDS = {"kills": "before their end", "cuts": "when finished", "writers": "with one refused"}


@click.command()
@click.option("--kills", type=int, default=20, show_default=True, help="Of each command.")
@click.option("--cuts", type=int, default=10, show_default=True, help="Of each command.")
@click.option("--writers", type=int, default=6, show_default=True, help="Pairs of each command.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Keep the figures there, as JSON.")
def main(kills: int, cuts: int, writers: int, seed: int, output: Path | None) -> None:
    """A campaign of kills, power cuts and two writers; ends with 1 where something was lost."""
    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "500"
    chance = random.Random(seed)  # noqa: S311 (when to kill, no secret)
    with tempfile.TemporaryDirectory() as place:
        os.environ["MERGING_CACHE"] = f"{place}/cache"
        pool = Path(place) / "pool"
        tiny_pool(pool, models=5)
        found = {"kills": campaign("kills", kills, pool, chance, kill)}
        if cuts and can_cut():
            half = lambda *given: cut(*given[:3], given[3] if chance.random() < 0.5 else None)  # noqa: E731
            found["cuts"] = campaign("cuts", cuts, pool, chance, half)
        elif cuts:
            click.echo("cuts     left out: they need root, loop devices and mkfs.ext4", err=True)
        found["writers"] = campaign("writers", writers, pool, chance, two)
    lost = sum(len(case["lost"]) for kind in found.values() for case in kind.values())
    if output is not None:
        figures = {"seed": seed, "python": platform.python_version(), "lost": lost, **found}
        output.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()

"""Workers and drivers killed at random moments: what a run decides and makes is that of an undisturbed one.

Each case is a run of ``greedy`` or ``manifoldmix`` on the digits as a process of its own, with workers. What is killed,
with SIGKILL:

- ``once``: one worker, at a random moment;
- ``twice``: a worker, and a moment later one again;
- ``busy``: a worker that is computing, so that a request is in flight;
- ``all``: every worker at once;
- ``driver``: the program itself; the run goes on with another number of workers, or with none;
- ``node``: all that Ray runs on one of two nodes, in whose place another one comes a moment later.

A case is lost if the run fails, if its events (evaluations and decisions), recipe or model differ from those of a run
without workers, or if a process is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.durability import begin
from merging.tasks import digits

STRATEGIES = ("greedy", "manifoldmix")
WORKERS = 2
RESUMED = ("1", "3", "none")
"""Workers of a run that goes on."""
POOL = Path(digits.__file__).parent / "digits_pool"
MODELS = 7
"""Of the pool of the digits, so that a run is short."""
DIGITS = ("--task", "digits", "--partitioner", "clip-c8", "--budget", "12", "--optimizer", "coordinate")
PLAIN = ("--no-baselines", "--no-tests", "--no-remember")
LONGEST = 300.0
"""Seconds after which a run that has not ended hangs."""
GONE = 5.0
"""Seconds in which all processes of a run must have ended after it."""


class Lost(Exception):
    """A run went otherwise than the undisturbed one, or left something behind."""


@dataclass(frozen=True)
class Made:
    """What must be the same, however a run was disturbed."""

    events: list[dict[str, Any]]
    recipe: bytes
    model: bytes

    @classmethod
    def of(cls, folder: Path) -> Made:
        """Reads it."""
        lines = (folder / "events.jsonl").read_text("utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        kept = [event for event in events if event["event"] in ("strategy", "evaluation", "decision")]
        for event in kept:
            event.pop("seconds", None)
        return cls(kept, (folder / "recipe.json").read_bytes(), (folder / "model.safetensors").read_bytes())

    def check(self, expected: Made) -> None:
        """Compares.

        Raises:
            Lost: something differs.
        """
        for number, (here, there) in enumerate(zip(self.events, expected.events, strict=False)):
            if here != there:
                raise Lost(f"event {number} differs: {json.dumps(here)[:80]} instead of {json.dumps(there)[:80]}")
        if len(self.events) != len(expected.events):
            raise Lost(f"{len(self.events)} events instead of {len(expected.events)}")
        if self.recipe != expected.recipe:
            raise Lost("the recipe differs")
        if self.model != expected.model:
            raise Lost("the model differs")


class Run:
    """One ``merge run``.

    Args:
        arguments: of the command.
        folder: where it runs; what it says is kept in ``said``.
        start: starts it, by default as a fork of this process.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, start: Callable[[Sequence[str], Path], int] = begin
    ) -> None:
        self._said = folder / "said"
        self.seen = set[int]()
        self.code: int | None = None
        self.number = start(arguments, folder)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self.code is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if number else None
        return self.code is None

    @property
    def workers(self) -> list[int]:
        """Its workers that live."""
        found = [number for number in processes() if parent(number) == self.number and is_worker(number)]
        self.seen |= set(found)
        return found

    def end(self) -> int:
        """Waits; returns the exit code, or the negative signal.

        Raises:
            Lost: it does not end.
        """
        until = time.monotonic() + LONGEST
        while self.running():
            self.workers  # noqa: B018 - notes them
            time.sleep(0.05)
            if time.monotonic() > until:
                kill([self.number, *self.seen])
                raise Lost(f"it had not ended after {LONGEST:.0f} s: {self.last}")
        return self.code or 0

    @property
    def last(self) -> str:
        """The last line that it said."""
        lines = self._said.read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def check_gone(self) -> None:
        """Waits until all processes that it has started are gone.

        Raises:
            Lost: one is left over.
        """
        until = time.monotonic() + GONE
        while left := [number for number in self.seen if alive(number)]:
            if time.monotonic() > until:
                raise Lost(f"process {left[0]} is left over")
            time.sleep(0.02)


def processes() -> list[int]:
    """All processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def status(number: int) -> list[str]:
    """State, parent and what follows in ``/proc/N/stat``; empty where there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    return []


def parent(number: int) -> int:
    """The parent of a process; 0 where there is none."""
    found = status(number)
    return int(found[1]) if found else 0


def alive(number: int) -> bool:
    """Whether a process runs."""
    found = status(number)
    return bool(found) and found[0] != "Z"


def is_worker(number: int) -> bool:
    """Whether a process is one of a crew's."""
    with contextlib.suppress(OSError):
        return b"workers/process.py" in Path(f"/proc/{number}/cmdline").read_bytes()
    return False


def kill(numbers: Sequence[int]) -> int:
    """Kills processes; returns how many were there."""
    killed = 0
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
            killed += 1
    return killed


def once(run: Run, chance: random.Random) -> int:
    """One of its workers."""
    workers = run.workers
    return kill([chance.choice(workers)]) if workers else 0


def twice(run: Run, chance: random.Random) -> int:
    """One of its workers, and again one a moment later: perhaps that which has taken the first one's place."""
    killed = once(run, chance)
    time.sleep(chance.uniform(0.0, 3.0))
    return killed + once(run, chance)


def busy(run: Run, chance: random.Random) -> int:
    """The first of its workers that is found computing within a second."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until and run.running():
        computing = [number for number in run.workers if status(number)[:1] == ["R"]]
        if computing:
            return kill([chance.choice(computing)])
    return 0


def everyone(run: Run, chance: random.Random) -> int:
    """All of its workers."""
    del chance
    return kill(run.workers)


def driver(run: Run, chance: random.Random) -> int:
    """The program itself."""
    del chance
    run.workers  # noqa: B018 - notes them
    return kill([run.number])


DISTURBED: dict[str, Callable[[Run, random.Random], int]] = {
    "once": once,
    "twice": twice,
    "busy": busy,
    "all": everyone,
    "driver": driver,
}


def models() -> list[str]:
    """The first models of the digits: files, because a fork of who has hashed them would wait for threads."""
    return [str(path) for path in sorted(POOL.glob("model_*.safetensors"))[:MODELS]]


def spawned(arguments: Sequence[str], folder: Path) -> int:
    """Starts ``merge`` as a new process, where this one has threads that a fork would miss."""
    said = (os.POSIX_SPAWN_OPEN, 1, str(folder / "said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    words = ["env", "-C", str(folder), sys.executable, "-m", "merging", *arguments]
    return os.posix_spawnp("env", words, os.environ, file_actions=[said, (os.POSIX_SPAWN_DUP2, 1, 2)])


@dataclass(frozen=True)
class Case:
    """One way to disturb one run.

    Args:
        strategy: how models are merged.
        problem: models, task and search, as the command takes them.
        workers: what ``--workers`` is told.
    """

    strategy: str
    problem: tuple[str, ...]
    workers: str = str(WORKERS)
    start: Callable[[Sequence[str], Path], int] = begin

    def arguments(self, workers: str) -> list[str]:
        """The command."""
        crew = [] if workers == "none" else ["--workers", workers]
        return ["run", *self.problem, "--strategy", self.strategy, *PLAIN, *crew, "--output", "out"]

    def undisturbed(self, folder: Path, workers: str) -> tuple[Made, float]:
        """What a run makes, and its seconds.

        Raises:
            Lost: it fails.
        """
        folder.mkdir(parents=True)
        began, run = time.perf_counter(), Run(self.arguments(workers), folder, self.start)
        if run.end():
            raise Lost(f"the undisturbed run failed: {run.last}")
        run.check_gone()
        return Made.of(folder / "out"), time.perf_counter() - began

    def disturbed(
        self, folder: Path, after: float, chance: random.Random, disturb: Callable[[Run, random.Random], int]
    ) -> tuple[Made, int]:
        """What a run makes that is disturbed after some seconds, and how many processes were killed.

        Raises:
            Lost: it fails, or leaves a process behind.
        """
        folder.mkdir(parents=True)
        run = Run(self.arguments(self.workers), folder, self.start)
        until = time.monotonic() + after
        while time.monotonic() < until and run.running():
            time.sleep(0.01)
        killed = disturb(run, chance) if run.running() else 0
        code = run.end()
        run.check_gone()
        if code < 0:
            run = Run(self.again(folder / "out/events.jsonl", chance), folder, self.start)
            code = run.end()
            run.check_gone()
        if code:
            raise Lost(f"it ended with {code}: {run.last}")
        return Made.of(folder / "out"), killed

    def again(self, journal: Path, chance: random.Random) -> list[str]:
        """The command after the program was killed."""
        if journal.is_file() and b"\n" in journal.read_bytes():
            trust = ["--trust-code"] if any(word.startswith("python:") for word in self.problem) else []
            return ["run", "--resume", "out", "--workers", chance.choice(RESUMED), *trust]
        return [*self.arguments(self.workers), "--overwrite"]


def digits_problem() -> tuple[str, ...]:
    """The digits, and a short search."""
    return (*models(), *DIGITS)


def campaign(folder: Path, times: int, seed: int, strategies: Sequence[str] = STRATEGIES) -> dict[str, Any]:
    """Tries each kind so many times with each strategy; returns the figures."""
    chance = random.Random(seed)  # noqa: S311 (when to kill, no secret)
    found: dict[str, Any] = {}
    for strategy in strategies:
        case = Case(strategy, digits_problem())
        expected, _ = case.undisturbed(folder / f"{strategy}-alone", "none")
        for kind, disturb in DISTURBED.items():
            found[f"{strategy}, {kind}"] = tried(case, disturb, folder, times, chance, expected)
            told(strategy, kind, found[f"{strategy}, {kind}"])
    return found


def tried(
    case: Case,
    disturb: Callable[[Run, random.Random], int],
    folder: Path,
    times: int,
    chance: random.Random,
    expected: Made,
) -> dict[str, Any]:
    """Disturbs a case so many times, each at another moment of a run of the length that it has now."""
    place = folder / "work"
    same, seconds = case.undisturbed(place, case.workers)
    same.check(expected)
    shutil.rmtree(place)
    row: dict[str, Any] = {"times": times, "killed": 0, "moments": [], "of": round(seconds, 2), "lost": []}
    for _ in range(times):
        after = chance.uniform(0.1, 1.0) * seconds
        row["moments"].append(round(after, 2))
        try:
            made, killed = case.disturbed(place, after, chance, disturb)
            row["killed"] += killed
            made.check(expected)
        except (Lost, OSError) as error:
            row["lost"].append(f"after {after:.2f} s: {error}")
        shutil.rmtree(place, ignore_errors=True)
    return row


def told(strategy: str, kind: str, row: dict[str, Any]) -> None:
    """Says how it went."""
    click.echo(
        f"{strategy:12} {kind:7} {row['times']:3} times, {row['killed']:3} processes killed, "
        f"{len(row['lost'])} lost {row['lost'][:1] or ''}",
        err=True,
    )

"""A run has the same bits whoever makes its passes, and however many they are."""

from __future__ import annotations

import json
import os
import pickle
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import merging
from merging.errors import CheckpointError, Stopped, WorkersError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.workers.crew import Crew
from merging.evaluation.workers.local import Local, threads
from merging.evaluation.workers.remote import RemoteScorer
from merging.evaluation.workers.requests import Kind
from merging.plugins.discovery import load_installed
from merging.plugins.optimizer import Vector
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Split, Task
from merging.plugins.watcher import Watcher
from merging.running.crew import HANDLER
from merging.running.execution import Execution
from merging.running.found import Found
from merging.running.notes import notes
from merging.running.plan import Plan, plan
from merging.running.session import Session
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.tasks.digits import digits
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble, Recipe
from tests.evaluation.workers.in_turns import InTurns, in_turns


@dataclass
class Seen:
    """What a run has come to, without its times."""

    events: list[dict[str, Any]]
    recipe: Any
    found: Found
    evaluator: Evaluator


def ran(made: Plan, folder: Path, crew: Crew | None = None, *, resume: bool = False) -> Seen:
    """Runs a plan, and reads its journal."""
    folder.mkdir(exist_ok=True)
    path = folder / "events.jsonl"
    with Journal(path, resume=resume) as journal:
        journal.write("run", made=1)
        session = Session.open(made, journal, Watcher(), crew=crew)
        assert session.evaluator is not None
        session.evaluator.remembered = None  # every outcome is made
        found = Execution(session).execute()
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in events:
        event.pop("seconds", None)
        event.pop("time", None)
    merged = found.merge
    recipes = merged.members if isinstance(merged, Ensemble) else [merged]
    return Seen(events, [each.to_json() for each in recipes if isinstance(each, Recipe)], found, session.evaluator)


def same(one: Seen, other: Seen) -> None:
    """Two runs have decided the same, from the same outcomes, at the same cost, and give the same model."""
    assert len(one.events) == len(other.events)
    for first, second in zip(one.events, other.events, strict=True):
        assert first == second
    assert one.recipe == other.recipe


@pytest.fixture(scope="module")
def some_digits() -> tuple[Task, ModelPool]:
    """The built-in task with a part of its data and models: enough for batches, few enough to be fast."""
    task, rows = digits(), torch.arange(200)
    few = Split.of(task.held_out.inputs[rows], task.held_out.labels[rows])
    pool = task.pool() if task.pool is not None else None
    assert pool is not None
    return replace(task, held_out=few, tests={"test": few.part(rows[:40])}, shifts=()), ModelPool(pool.checkpoints[:5])


class Normalised(nn.Module):
    """A convolution with statistics that averages spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.first(images)).relu().mean((2, 3)))
        return found


def normalised(pool: ModelPool) -> nn.Module:
    del pool
    return Normalised()


@pytest.fixture(scope="module")
def statistics() -> tuple[Task, ModelPool]:
    """A task whose averages have their BatchNorm statistics measured again."""
    generator, states = torch.Generator().manual_seed(5), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for _ in range(4):
            module = Normalised()
            states.append({n: t + 0.2 * torch.rand(t.shape, generator=generator) if t.is_floating_point() else t
                           for n, t in module.state_dict().items()})  # fmt: skip
    images, labels = torch.randn(300, 3, 9, 9, generator=generator), torch.randint(0, 4, (300,), generator=generator)
    train = Split.of(torch.randn(64, 3, 9, 9, generator=generator), torch.randint(0, 4, (64,), generator=generator))
    task = Task(name="statistics", build=normalised, held_out=Split.of(images, labels), train=train)
    return task, ModelPool(states)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "greedy": ("greedy", {}, {}),
    "random orders": ("greedy", {"order": "random", "orders": 2}, {}),
    "early": ("greedy", {"early": True}, {}),
    "cobyla": ("manifoldmix", {}, {"budget": 8}),
    "scipy": ("manifoldmix", {"tau": 0.99}, {"budget": 8, "optimizer": "scipy-cobyla"}),
    "nested": ("manifoldmix", {"tau": 0.99}, {"budget": 10, "optimizer": "nested"}),
    "batches": ("manifoldmix", {"tau": 0.99}, {"budget": 10, "optimizer": "random"}),
    "reference": ("manifoldmix", {"profile": "reference"}, {"budget": 8}),
    "ensemble": ("ensemble", {}, {}),
    "greedy ensemble": ("greedy-ensemble", {}, {}),
    "a number": ("ties", {"density": "search"}, {"budget": 8}),
}


def planned(given: tuple[Task, ModelPool], case: str, **more: Any) -> Plan:
    task, pool = given
    strategy, options, settings = CASES[case]
    if strategy == "ties":
        pool = ModelPool(pool.checkpoints[1:], pool.checkpoints[0])
    load_installed()
    made = strategies[strategy](**options)
    usual = {"threads": 1, "baselines": False, "pool_tests": False}
    return plan(pool, made, task=task, partitioner="layer", **{**usual, **settings, **more})


@pytest.mark.parametrize("case", CASES)
def test_bits_of_one_process(case: str, some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    made = planned(some_digits, case)
    alone = ran(made, tmp_path / "alone")
    for count in (1, 4) if len(case) % 2 else (2, 4):
        with in_turns(InTurns(count, seed=count), tmp_path / f"files{count}") as crew:
            same(ran(made, tmp_path / f"by{count}", crew), alone)
            assert sum(each.answers for each in crew.workers) > 5


@pytest.mark.parametrize("case", ["greedy", "cobyla", "ensemble"])
def test_bits_where_statistics_are_measured(case: str, statistics: tuple[Task, ModelPool], tmp_path: Path) -> None:
    made = planned(statistics, case)
    assert made.settings.rules.recalibrate
    alone = ran(made, tmp_path / "alone")
    made = planned(statistics, case)  # which statistics a pass reaches is found out anew
    with in_turns(InTurns(3), tmp_path / "files") as crew:
        same(ran(made, tmp_path / "by3", crew), alone)


@pytest.mark.parametrize("case", ["greedy", "cobyla", "batches"])
def test_bits_of_parts(case: str, some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """Where a pass is long enough, all workers make each of them together."""
    made = planned(some_digits, case)
    assert made.numerics is not None
    made = replace(made, numerics=replace(made.numerics, batch=16))
    alone = ran(made, tmp_path / "alone")
    with in_turns(InTurns(3), tmp_path / "files") as crew, pytest.MonkeyPatch.context() as patch:
        patch.setattr("merging.evaluation.workers.sharing.OVERHEAD", 0.0)
        same(ran(made, tmp_path / "by3", crew), alone)
        assert crew.plans is not None
        assert crew.plans[1].pays


@pytest.mark.parametrize("case", ["greedy", "cobyla"])
def test_workers_are_lost(case: str, some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    made = planned(some_digits, case)
    alone = ran(made, tmp_path / "alone")
    backend = InTurns(3, deaths=0.02)
    with in_turns(backend, tmp_path / "files") as crew:
        same(ran(made, tmp_path / "by3", crew), alone)
        assert backend.lost
        assert sum(bool(each.lost) for each in crew.workers) == backend.lost
        assert len({each.fingerprint for each in crew.workers if each.fingerprint}) == 1


def test_what_kills_whoever_is_asked_has_failed(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """The search goes on, the journal says why, and a resumed run need not find out again."""
    made, deadly = planned(some_digits, "greedy", baselines=True), list[str]()

    def fatal(message: bytes) -> bool:
        asked = pickle.loads(message)  # noqa: S301 - our own
        return asked.kind is Kind.MEASURE and any(name in deadly for name, _ in asked.definitions)

    backend = InTurns(2, fatal=fatal)
    with in_turns(backend, tmp_path / "files") as crew:
        session = Session.open(made, Journal(None), Watcher(), crew=crew)
        average = session.problem(made.strategy).mean(range(5))
        deadly.append(crew.packer.name(average))
    backend = InTurns(2, fatal=fatal)
    with in_turns(backend, tmp_path / "files") as crew:
        seen = ran(made, tmp_path / "run", crew)
    failed = [event for event in seen.events if event.get("failed")]
    assert {event["split"] for event in failed} == {"held-out", "test"}
    assert "killed 3 workers" in failed[0]["failed"]
    assert failed[0]["score"] == -1e300
    assert backend.lost == 6
    assert seen.found.saved == "greedy"
    assert any("2 evaluations have no result" in note for note in notes(made, seen.found, seen.evaluator, (), ()))
    with Journal(tmp_path / "run" / "events.jsonl", resume=True) as journal:
        journal.write("run", made=1)
        session = Session.open(made, journal, Watcher())
        Execution(session).execute()
        assert session.evaluator is not None
        assert len(session.evaluator.ledger.failures) == 2


@pytest.mark.parametrize(("case", "kind"), [("early", Kind.TEST), ("greedy ensemble", Kind.LOGITS)])
def test_tests_and_outputs_that_kill(
    case: str, kind: Kind, some_digits: tuple[Task, ModelPool], tmp_path: Path
) -> None:
    """A test that kills has failed as an evaluation has; without outputs there is nothing to go on with."""

    def fatal(message: bytes) -> bool:
        return backend.lost < 6 and pickle.loads(message).kind is kind  # noqa: S301 - our own

    backend = InTurns(2, fatal=fatal)
    with in_turns(backend, tmp_path / "files") as crew:
        if kind is Kind.LOGITS:
            with pytest.raises(WorkersError, match="finding the outputs of 1 model on held-out ends workers: it has"):
                ran(planned(some_digits, case), tmp_path / "run", crew)
            return
        seen = ran(planned(some_digits, case), tmp_path / "run", crew)
    failed = [event for event in seen.events if event.get("failed")]
    assert len(failed) == 2
    assert {event["score"] for event in failed} == {-1e300}


def test_a_task_that_kills_ends_the_run(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    backend = InTurns(2, fatal=lambda message: pickle.loads(message).kind is Kind.MEASURE)  # noqa: S301 - our own
    with (
        in_turns(backend, tmp_path / "files") as crew,
        pytest.raises(WorkersError, match="3 evaluations in a row have no result, the last one because it has killed"),
    ):
        ran(planned(some_digits, "greedy"), tmp_path / "run", crew)


class Foreseeing(MixStrategy):
    """Somebody's strategy, which says what it will ask."""

    name = "foreseeing"
    label = "foreseeing"
    summary = "asks what it has announced"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        pairs = [problem.mean([0, index]) for index in range(1, len(problem.pool))]
        problem.ahead(pairs)
        scores = [problem.evaluate(pair).score for pair in pairs]
        problem.ahead(partial(self.looked, first=index) for index in range(2))
        return (
            max((problem.apart(self.looked, first=index) for index in range(2)), key=lambda found: found[1])[0]
            or (pairs[scores.index(max(scores))])
        )

    def looked(self, problem: Problem, *, first: int) -> tuple[Recipe, float]:
        """The best average of three with a model."""
        found = [problem.mean([first, first + 1, other]) for other in range(first + 2, len(problem.pool))]
        scores = [problem.evaluate(each).score for each in found]
        return found[scores.index(max(scores))], max(scores)


def test_somebodys_strategy(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    task, pool = some_digits
    made = plan(pool, Foreseeing(), task=task, threads=1, baselines=False, pool_tests=False)
    alone = ran(made, tmp_path / "alone")
    with in_turns(InTurns(2), tmp_path / "files") as crew:
        same(ran(made, tmp_path / "by2", crew), alone)


class Repeating(MixStrategy):
    """Somebody's strategy, whose search asks for the same merge at every point, and for something of another kind."""

    name = "repeating"
    label = "repeating"
    summary = "searches a function that asks several things"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        middle, ends = problem.mean([0, 1]), Ensemble((problem.single(0), problem.single(1)), (0.5, 0.5))
        path = problem.search.between(problem.single(0), problem.single(1))
        known, drawn = problem.evaluate(problem.single(2)), list[float]()

        def look(point: Vector) -> Outcome:
            problem.keep(problem.single(2), known)
            drawn.append(problem.generator.random())
            problem.evaluate(problem.single(2))
            problem.decide(both=problem.evaluate(ends).score, accepted=False)
            problem.keep(middle, problem.evaluate(middle))
            return path(np.full(len(problem.partition), point[0]))

        one = np.ones(1)
        problem.search.maximize(look, lower=0 * one, upper=one, start=0.5 * one, budget=6)
        problem.decide(last=drawn[-1], accepted=False)
        return middle


def test_a_function_that_is_listened_to_counts_nothing(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """Whoever makes points beforehand finds out what a function asks, and leaves no trace of it."""
    task, pool = some_digits
    made = plan(pool, Repeating(), task=task, optimizer="random", threads=1, baselines=False, pool_tests=False)
    alone = ran(made, tmp_path / "alone")
    with in_turns(InTurns(2), tmp_path / "files") as crew:
        seen = ran(made, tmp_path / "by2", crew)
    same(seen, alone)
    assert len(seen.found.kept) == len(alone.found.kept)
    meters = [found.merges["repeating"].meter for found in (seen.found, alone.found)]
    assert [replace(meter, seconds=0.0) for meter in meters] == [replace(meters[1], seconds=0.0)] * 2


def test_limit_and_resume_with_another_number(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    whole = ran(planned(some_digits, "cobyla"), tmp_path / "whole")
    limited = planned(some_digits, "cobyla", max_evaluations=12)
    with in_turns(InTurns(3), tmp_path / "files") as crew:
        cut = ran(limited, tmp_path / "run", crew)
    assert cut.found.limit == 12
    with in_turns(InTurns(2), tmp_path / "files") as crew:
        again = ran(planned(some_digits, "cobyla"), tmp_path / "run", crew, resume=True)
    kept = [event for event in again.events if event["event"] != "stopped"]
    assert [event for event in kept if event["event"] == "decision"] == [
        event for event in whole.events if event["event"] == "decision"
    ]
    assert again.recipe == whole.recipe


@pytest.mark.slow
def test_processes_are_killed(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """Two real processes, one of which dies in the middle of what it is asked; none is left over."""
    from merging.evaluation.workers.blobs import Blobs
    from merging.evaluation.workers.requests import first_words

    made = planned(some_digits, "cobyla")
    alone = ran(made, tmp_path / "alone")
    folder, lost = tmp_path / "files", list[int]()
    folder.mkdir()
    backend = Local(2, HANDLER, lambda number: threads(1))
    crew = Crew(backend, Blobs((folder,), folder))
    measured, count = RemoteScorer.measure, 0

    def measure(self: RemoteScorer, *arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count in (6, 14):  # with something in its hands, as likely as not
            busy = next((n for n, member in enumerate(crew.members) if member.jobs), 0)
            lost.append(int(backend.place(busy).rpartition(" ")[2]))
            os.kill(lost[-1], signal.SIGKILL)
        return measured(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteScorer, "measure", measure)
        try:
            backend.start(lambda number: first_words(folder))
            same(ran(made, tmp_path / "by2", crew), alone)
        finally:
            crew.close()
    assert len(lost) == 2
    assert sum(member.lost for member in crew.members) == 2
    gone = [*lost, *(int(each.place.rpartition(" ")[2]) for each in crew.workers)]
    assert not [number for number in gone if Path(f"/proc/{number}").exists()]


def test_a_file_that_differs_is_refused(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """On another machine every file is compared by content before anything is asked."""
    from safetensors.torch import load_file, save_file

    task, pool = some_digits
    for checkpoint in pool.checkpoints[:3]:
        save_file(load_file(checkpoint.path), tmp_path / checkpoint.path.name)
    made = plan(ModelPool(sorted(tmp_path.glob("*.safetensors"))), "uniform", task=task, threads=1)
    other = load_file(pool.checkpoints[3].path)
    save_file(other, tmp_path / pool.checkpoints[1].path.name)
    with in_turns(InTurns(2), tmp_path / "files") as crew, pytest.MonkeyPatch.context() as patch:
        patch.setattr("merging.evaluation.workers.world.machine", lambda: "elsewhere")
        with pytest.raises(CheckpointError, match="differs between machines"):
            Session.open(made, Journal(None), Watcher(), crew=crew)


def test_files_are_sent_where_they_are_missing(
    some_digits: tuple[Task, ModelPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models and data that a machine does not have are sent once, and the bits are the same."""
    from merging.evaluation.workers import worker

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    made = planned(some_digits, "greedy")
    alone = ran(made, tmp_path / "alone")
    there = {str(checkpoint.path.absolute()) for checkpoint in made.pool.checkpoints}
    exists = Path.exists

    class Elsewhere(worker.Worker):
        """A worker on a machine that sees none of the driver's folders."""

        def answers(self, message: bytes) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "exists", lambda path: str(path) not in there and exists(path))
                yield from list(super().answers(message))

    monkeypatch.setattr("tests.evaluation.workers.in_turns.Worker", Elsewhere)
    backend = InTurns(2)
    with in_turns(backend, tmp_path / "files") as crew:
        backend.start(lambda number: pickle.dumps({"folder": str(tmp_path / "nowhere")}))
        same(ran(made, tmp_path / "by2", crew), alone)
    sent = list((tmp_path / "own").rglob("model_*.safetensors"))
    assert len(sent) == len(made.pool)


def test_what_belongs_to_this_process_alone_is_refused(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    task, pool = some_digits
    with (tmp_path / "open").open("w") as held:
        prepare = task.prepare
        task = replace(task, prepare=lambda batch: (held.fileno(), prepare(batch))[1])
        made = plan(pool, "uniform", task=task, threads=1)
        with in_turns(InTurns(1), tmp_path / "files") as crew, pytest.raises(merging.TaskError, match="workers cannot"):
            Session.open(made, Journal(None), Watcher(), crew=crew)


def test_interrupted_while_waiting(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    made, asked = planned(some_digits, "greedy"), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with in_turns(InTurns(2), tmp_path / "files") as crew:
        problem = Session.open(made, Journal(None), Watcher(should_stop=stop), crew=crew).problem(made.strategy)
        with pytest.raises(Stopped):
            problem.rank()


@pytest.mark.slow
def test_bits_on_two_nodes(some_digits: tuple[Task, ModelPool], tmp_path: Path, ray_nodes: Any) -> None:
    """Actors of Ray, a node each, one of which is killed in between."""
    from merging.evaluation.workers.blobs import Blobs
    from merging.evaluation.workers.on_ray import OnRay
    from merging.evaluation.workers.requests import first_words

    folder = tmp_path / "files"
    folder.mkdir()
    backend = OnRay(2, HANDLER, ray_nodes.address, environment=lambda number: threads(1))
    crew = Crew(backend, Blobs((folder,), folder))
    try:
        backend.start(lambda number: first_words(folder))
        for case in ("cobyla", "ensemble"):
            made = planned(some_digits, case)
            same(ran(made, tmp_path / f"{case} on ray", crew), ran(made, tmp_path / case))
            if case == "cobyla":
                os.kill(int(backend.place(1).rpartition(" ")[2]), signal.SIGKILL)
        assert sum(member.lost for member in crew.members) == 1
    finally:
        crew.close()


def test_merges_that_are_files_are_forgotten(some_digits: tuple[Task, ModelPool], tmp_path: Path) -> None:
    """A search over a number of a method makes a model a point; few of them are on the disk at a time."""
    made = planned(some_digits, "a number")
    alone = ran(made, tmp_path / "alone")
    most, seen, kept = 0, set[str](), Crew.job

    def counted(self: Crew, *arguments: Any, **more: Any) -> Any:
        nonlocal most
        found = kept(self, *arguments, **more)
        there = {name for name, each in self.packer.definitions.items() if each.files}
        seen.update(there)
        most = max(most, len(there))
        return found

    with in_turns(InTurns(2), tmp_path / "files") as crew, pytest.MonkeyPatch.context() as patch:
        patch.setattr("merging.evaluation.workers.crew.KEPT", 2)
        patch.setattr("merging.evaluation.workers.blobs.LARGE", 1 << 10)
        patch.setattr(Crew, "job", counted)
        same(ran(made, tmp_path / "by2", crew), alone)
        assert len(seen) > 4
        assert most <= 4
        held = {file for each in crew.packer.definitions.values() for file in each.files} | crew.packer.kept
        assert {path.name for path in (tmp_path / "files").iterdir()} == held


@pytest.mark.parametrize("seed", range(4))
def test_who_brings_files_is_lost(
    seed: int, some_digits: tuple[Task, ModelPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of that machine ask again; all of them begin, whoever dies while files are on their way."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    monkeypatch.setattr("merging.evaluation.workers.sending.CHUNK", 1 << 14)
    (tmp_path / "own").mkdir()
    made = planned(some_digits, "greedy")
    backend = InTurns(3, seed=seed)
    with in_turns(backend, tmp_path / "files") as crew:
        backend.start(lambda number: pickle.dumps({"folder": str(tmp_path / "nowhere")}))
        backend.deaths = 0.04
        Session.open(made, Journal(None), Watcher(), crew=crew)
    assert all(member.gone or member.facts is not None for member in crew.members)


@pytest.mark.slow
def test_benchmark(some_digits: tuple[Task, ModelPool]) -> None:
    """Methods that search run side by side, a process each, and share what one of them has had scored."""
    task, pool = some_digits
    methods = {
        "greedy": strategies["greedy"](),
        "mix": strategies["manifoldmix"](tau=0.99),
        "random orders": strategies["greedy"](order="random"),
        "ensemble": strategies["ensemble"](),
    }
    found = [
        merging.benchmark(
            ModelPool(pool.checkpoints[:3]),
            methods,
            task=task,
            partitioners=["layer"],
            budget=4,
            threads=1,
            workers=workers,
            remember=False,
        )
        for workers in (None, 2)
    ]
    assert [len(each.workers) for each in found] == [0, 2]
    alone, two = (_timeless(each.to_json()) for each in found)
    assert alone == two


def _timeless(value: Any) -> Any:
    """What a benchmark says, without times, and who has worked."""
    if isinstance(value, dict):
        left_out = ("seconds", "wall_seconds", "workers", "header", "notes")
        return {key: _timeless(each) for key, each in value.items() if key not in left_out}
    return [_timeless(each) for each in value] if isinstance(value, list | tuple) else value

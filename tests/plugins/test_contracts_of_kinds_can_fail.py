"""Each check of the contracts of tasks, model sources, forms of data, regimes and sinks notices what it is for."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import merging
from merging.data.form import DataForm
from merging.data.opened import Opened
from merging.data.reader import Reader
from merging.errors import Stopped, TaskError
from merging.models.source import ModelSource, reproducible
from merging.plugins.discovery import load_installed
from merging.plugins.registry import PLUGINS, forms, models, tasks
from merging.plugins.task import Split, Task
from merging.testing import (
    DataFormContract,
    ModelSourceContract,
    RegimeContract,
    SinkContract,
    TaskContract,
    TinyNet,
    tiny_pool,
    tiny_task,
)
from merging.testing.fixtures import blobs
from merging.testing.models import tiny_images
from merging.testing.plugins import Contract
from merging.testing.sinks import nothing_leaves
from merging.training.regime import Regime
from merging.training.trainer import Run

CONTRACTS: dict[str, type[Contract]] = {
    "task": TaskContract,
    "model": ModelSourceContract,
    "form": DataFormContract,
    "regime": RegimeContract,
    "sink": SinkContract,
}
NOTICED: dict[str, set[str]] = {kind: set() for kind in CONTRACTS}
"""Kind → checks for which there is something broken below."""


def test_every_check_of_its_own_can_fail() -> None:
    for kind, contract in CONTRACTS.items():
        own = {name for name in vars(contract) if name.startswith("test_")}
        assert own == NOTICED[kind], kind


@pytest.mark.parametrize("kind", CONTRACTS)
def test_what_is_not_registered(kind: str) -> None:
    load_installed()

    def nobody() -> None: ...

    nobody.name = next(iter(PLUGINS[kind]))  # type: ignore[attr-defined]
    nobody.summary = ""  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        Contract.test_is_registered_under_its_name(CONTRACTS[kind](), nobody)
    with pytest.raises(AssertionError, match="merge list"):
        Contract.test_says_what_it_is(CONTRACTS[kind](), nobody)


# Tasks


def one_module(module: nn.Module) -> Callable[[], Task]:
    return lambda: replace(tiny_task(), build=lambda pool: module)


def drawn() -> Task:
    return replace(tiny_task(), held_out=Split.of(torch.rand(20, 4), torch.arange(20) % 3))


def far() -> Task:
    task = tiny_task()
    return replace(task, held_out=replace(task.held_out, inputs=task.held_out.inputs.to("meta")))


BROKEN_TASKS: list[tuple[str, Callable[[], Task], str]] = [
    ("test_makes_the_same_task_again", drawn, "other samples"),
    ("test_leaves_the_global_generators_alone", drawn, "torch's global generator"),
    ("test_what_selects_is_no_test", lambda: replace(tiny_task(), train=blobs(90, seed=2)), "is the train data"),
    ("test_samples_are_on_the_cpu", far, "held-out"),
    ("test_has_the_sets_that_it_states", tiny_task, "and states"),
    ("test_its_model_answers", one_module(nn.Linear(4, 2)), "none of the model's outputs"),
    ("test_builds_a_module_a_pool", one_module(TinyNet()), "one module twice"),
]


@pytest.mark.parametrize(("check", "make", "said"), BROKEN_TASKS, ids=[check for check, *_ in BROKEN_TASKS])
def test_a_broken_task(check: str, make: Callable[[], Task], said: str, tmp_path: Path) -> None:
    stating = SimpleNamespace(sets=("held-out", "nowhere"))
    given = {"make": make, "pool": tiny_pool(tmp_path, models=1), "plugin": stating}
    test = getattr(TaskContract(), check)
    with pytest.raises(AssertionError, match=said):
        test(**{name: given[name] for name in given if name in test.__code__.co_varnames[: test.__code__.co_argcount]})


NOTICED["task"] |= {check for check, *_ in BROKEN_TASKS} | {"test_every_option_has_help"}


def test_a_task_that_does_not_say_what_it_takes() -> None:
    @tasks.register("silent-task")
    def silent(size: int = 3) -> Task:
        """A task."""
        return tiny_task()

    with pytest.raises(AssertionError, match="what 'size' is"):
        TaskContract().test_every_option_has_help(silent)


# Sources of models


class Fine(ModelSource):
    """A good one, of which each broken one changes a part."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        if name != "known" or arguments:
            raise TaskError(f"broken:{name} takes no {', '.join(arguments) or 'other name than known'}")
        super().__init__(f"broken:{name}", arguments)

    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        net = tiny_images()
        net[2] = reproducible(lambda: nn.Linear(48, classes or 7))  # type: ignore[operator, arg-type, assignment]
        return net

    @property
    def sides(self) -> tuple[int, int]:
        return (224, 224)


class Renamed(Fine):
    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(name, arguments)
        self.spec = f"timm:{name}"


class Random(Fine):
    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, classes or 7))


class Headless(Fine):
    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        return tiny_images()

    def build(self, pool: Any) -> nn.Module:
        return tiny_images()


class OfTheBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))[:, :1].expand(-1, 5) - images.mean()


class Together(Fine):
    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        return OfTheBatch()


class Sized(Fine):
    @property
    def sides(self) -> tuple[int, int]:
        return (32, 32)

    def transform(self, *how: Any) -> Any:
        return merging.model_source("torchvision:squeezenet1_1").transform(64)


class Credulous(Fine):
    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        super().__init__("known", {})


BROKEN_SOURCES: list[tuple[str, type[Fine], dict[str, Any], str]] = [
    ("test_its_text_finds_it_again", Renamed, {"model": "known"}, "spec is 'timm:known'"),
    ("test_weights_are_reproducible", Random, {}, "global generator"),
    ("test_reads_the_number_of_classes_off_the_checkpoints", Headless, {}, "decides_classes=True"),
    ("test_answers_its_example", Together, {}, "not close"),
    ("test_its_pictures_go_in", Sized, {}, "sides says"),
    ("test_a_model_that_it_does_not_know_is_refused", Credulous, {"alone": None, "name": "any"}, "DID NOT RAISE"),
    (
        "test_an_argument_that_it_does_not_take_is_refused",
        Credulous,
        {"alone": None, "model": "known"},
        "DID NOT RAISE",
    ),
]
NOTICED["model"] |= {check for check, *_ in BROKEN_SOURCES}


@pytest.mark.parametrize(
    ("check", "broken", "given", "said"), BROKEN_SOURCES, ids=[check for check, *_ in BROKEN_SOURCES]
)
def test_a_broken_source(check: str, broken: type[Fine], given: dict[str, Any], said: str, tmp_path: Path) -> None:
    for plugin in (Fine, broken):
        registered = models.register("broken")(plugin)
        test = getattr(ModelSourceContract(), check)
        names = test.__code__.co_varnames[: test.__code__.co_argcount]
        known = {"plugin": registered, "tmp_path": tmp_path} | given
        if "source" in names:
            known["source"] = merging.model_source("broken:known")
        if plugin is Fine:
            test(**{name: value for name, value in known.items() if name in names})
            del models._classes["broken"]
            continue
        with pytest.raises((AssertionError, pytest.fail.Exception), match=said):
            test(**{name: value for name, value in known.items() if name in names})


# Forms of data


@dataclass(frozen=True)
class Lines(DataForm):
    """A good one: a file with a number a line, which is picture and label."""

    summary: ClassVar[str] = "numbers"
    suffixes: ClassVar[tuple[str, ...]] = (".lines",)

    def open(self, reader: Reader) -> Opened:
        numbers = [int(line) for line in Path(reader.path).read_text(encoding="utf-8").split()]
        inputs = torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].repeat(1, 4, 4, 3)
        return reader.samples(Split.of(inputs, torch.tensor(numbers)), names=("cat", "dog", "owl"))

    @staticmethod
    def tiny(folder: Path) -> str:
        (folder / "set.lines").write_text("0\n1\n2\n1\n")
        return str(folder / "set.lines")


@dataclass(frozen=True)
class Taking(Lines):
    label: str = merging.option("label", "what all forms call so")


class Optional(Lines):
    keys: ClassVar[tuple[str, ...]] = ("classes", "map", "no_such_key")


class Shouting(Lines):
    suffixes: ClassVar[tuple[str, ...]] = (".LINES",)


class Greedy(Lines):
    def reads(self, path: str) -> bool:
        return True


class Final(Lines):
    def open(self, reader: Reader) -> Opened:
        return replace(super().open(reader), written=())


class Shuffled(Lines):
    calls: ClassVar[Any] = itertools.count()

    def open(self, reader: Reader) -> Opened:
        opened, call = super().open(reader), next(self.calls)
        return replace(opened, decode=lambda found: opened.decode(found).part(torch.arange(2 + call % 2)))


class Labelled(Lines):
    def open(self, reader: Reader) -> Opened:
        return super().open(replace(reader, labelled=True))


class Stubborn(Lines):
    def open(self, reader: Reader) -> Opened:
        opened = super().open(reader)
        return replace(opened, final=True)


class Forgiving(Lines):
    def open(self, reader: Reader) -> Opened:
        if not Path(reader.path).exists():
            return reader.samples(Split.of(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)))
        return super().open(reader)


BROKEN_FORMS: list[tuple[str, type[Lines], str]] = [
    ("test_keys_are_known_and_options_are_its_own", Optional, "keys are of"),
    ("test_keys_are_known_and_options_are_its_own", Taking, "label: list it among its keys"),
    ("test_says_how_it_is_written", Shouting, "lower case"),
    ("test_reads_its_own", Greedy, "/nowhere"),
    ("test_opens_before_it_decodes", Final, "labels that occur"),
    ("test_loads", Shuffled, "of three classes"),
    ("test_labels_are_left_out", Labelled, "labels are there"),
    ("test_follows_the_models_classes", Stubborn, "order of the model"),
    ("test_renames_classes", Stubborn, "map was not followed"),
    ("test_a_missing_set_is_said", Forgiving, "DID NOT RAISE"),
]
NOTICED["form"] |= {check for check, *_ in BROKEN_FORMS}


@pytest.mark.parametrize(
    ("check", "broken", "said"), BROKEN_FORMS, ids=[f"{check}-{broken.__name__}" for check, broken, _ in BROKEN_FORMS]
)
def test_a_broken_form(check: str, broken: type[Lines], said: str, tmp_path: Path) -> None:
    contract = DataFormContract()
    for kind in (Lines, broken):
        plugin: Any = forms.register("broken")(kind)()
        test = getattr(contract, check)
        names = test.__code__.co_varnames[: test.__code__.co_argcount]
        known: dict[str, Any] = {"plugin": plugin, "path": plugin.tiny(tmp_path)}
        known["load"] = DataFormContract.load.__wrapped__(contract, plugin, known["path"])  # type: ignore[attr-defined]
        given = {name: value for name, value in known.items() if name in names}
        if kind is Lines:
            test(**given)
            del forms._classes["broken"]
            continue
        with pytest.raises((AssertionError, pytest.fail.Exception), match=said):
            test(**given)


# Regimes


@dataclass(frozen=True)
class Plain(Regime):
    """A good one."""

    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        for run in runs:
            while not run.finished:
                for _ in range(run.steps):
                    run.step()
                yield


class Impatient(Plain):
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        for _ in range(runs[0].steps * 4):
            runs[0].step()
            yield


class Destructive(Plain):
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        yield from super().train(runs)
        for parameter in runs[0].module.parameters():
            parameter.data.zero_()


class Noisy(Plain):
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        yield from super().train(runs)
        for parameter in runs[0].module.parameters():
            parameter.data.add_(1e-3 * torch.rand(()))


class Forgetful(Plain):
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        for _ in range(runs[0].settings.epochs):
            for _ in range(runs[0].steps):
                runs[0].step()
            yield


class Deaf(Plain):
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        try:
            yield from super().train(runs)
        except Stopped:
            yield


BROKEN_REGIMES: list[tuple[str, type[Plain], str]] = [
    ("test_trains_to_the_end", Impatient, "within an epoch"),
    ("test_learns", Destructive, "no better than a guess"),
    ("test_gives_the_same_bits_again", Noisy, "another model"),
    ("test_goes_on_where_it_was", Forgetful, "does not end"),
    ("test_lets_an_interruption_through", Deaf, "DID NOT RAISE"),
]
NOTICED["regime"] |= {check for check, *_ in BROKEN_REGIMES}


@pytest.mark.parametrize(("check", "broken", "said"), BROKEN_REGIMES, ids=[check for check, *_ in BROKEN_REGIMES])
def test_a_broken_regime(check: str, broken: type[Plain], said: str) -> None:
    contract: Any = RegimeContract()
    for kind in (Plain, broken):
        plugin = kind()
        settings, task = RegimeContract.settings.__wrapped__(contract), RegimeContract.task.__wrapped__(contract)  # type: ignore[attr-defined]
        start = RegimeContract.start.__wrapped__(contract, plugin, settings, task)  # type: ignore[attr-defined]
        if kind is Plain:
            getattr(contract, check)(plugin, start)
            continue
        with pytest.raises((AssertionError, pytest.fail.Exception), match=said):
            getattr(contract, check)(plugin, start)


# Sinks


@dataclass(frozen=True)
class Quiet(merging.Sink):
    """A good one."""

    folder: str | None = merging.option(None, "where")

    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        return merging.SinkWriter()


class Unruly(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        Path("left-here").write_text("a file")
        return super().begin(run)


class Distant(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        with contextlib.suppress(OSError), socket.socket() as home:
            home.connect(("192.0.2.1", 443))
        return super().begin(run)


class Proxied(Quiet):
    """As another process would: by the proxy that the environment names."""

    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        host, port = os.environ["HTTPS_PROXY"].rpartition("/")[2].split(":")
        with socket.create_connection((host, int(port))) as home:
            home.sendall(b"CONNECT telemetry.example:443 HTTP/1.1\r\n\r\n")
        return super().begin(run)


class Fragile(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        raise ValueError("always")


class Meddling(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        return Meddler(run)


class Meddler(merging.SinkWriter):
    def __init__(self, run: merging.SinkRun) -> None:
        self.folder = run.folder

    def end(self, end: merging.SinkEnd) -> None:
        assert self.folder is not None
        with open(self.folder / "events.jsonl", "ab") as file:
            file.write(b'{"event":"mine"}\n')


class Once(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        if run.resumed:
            raise ValueError("it is there already")
        return super().begin(run)


class Demanding(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        return Demanded()


class Demanded(merging.SinkWriter):
    def end(self, end: merging.SinkEnd) -> None:
        assert end.report["rows"], "no rows"


class Late(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        if run.folder is None:
            raise ValueError("where to?")
        return super().begin(run)


class Lingering(Quiet):
    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        threading.Thread(target=time.sleep, args=(0.3,), name="lingers").start()
        return super().begin(run)


BROKEN_SINKS: list[tuple[str, type[Quiet], str]] = [
    ("test_changes_nothing_in_a_run", Unruly, "writes to the working folder"),
    ("test_changes_nothing_in_a_run", Distant, "talks to another machine"),
    ("test_changes_nothing_in_a_run", Proxied, "talks to another machine"),
    ("test_changes_nothing_in_a_run", Fragile, "in an ordinary run"),
    ("test_changes_nothing_in_a_run", Meddling, "others than without it"),
    ("test_goes_on_with_a_run", Once, "where a run goes on"),
    ("test_takes_the_end_of_a_run_without_a_result", Demanding, "rows"),
    ("test_says_before_any_work_what_it_lacks", Late, "and then it fails"),
    ("test_leaves_no_thread_behind", Lingering, "lingers"),
]
NOTICED["sink"] |= {check for check, *_ in BROKEN_SINKS}


@pytest.mark.parametrize(
    ("check", "broken", "said"), BROKEN_SINKS, ids=[f"{check}-{broken.__name__}" for check, broken, _ in BROKEN_SINKS]
)
def test_a_broken_sink(
    check: str, broken: type[Quiet], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract: Any = SinkContract()
    for kind in (Quiet, broken):
        folder = tmp_path / kind.__name__
        (folder / "here").mkdir(parents=True)
        monkeypatch.chdir(folder / "here")
        test = getattr(contract, check)
        with nothing_leaves(monkeypatch) as abroad:
            known = {"sink": kind(), "pool": tiny_pool(folder / "pool", models=3), "tmp_path": folder, "abroad": abroad}
            names = test.__code__.co_varnames[: test.__code__.co_argcount]
            given = {name: value for name, value in known.items() if name in names}
            if kind is Quiet:
                test(**given)
                continue
            with pytest.raises((AssertionError, KeyError), match=said):
                test(**given)

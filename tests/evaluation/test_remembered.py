"""A score is found again only where all that decides it is the same: each single thing is varied, one by one."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import merging
from merging.evaluation import surroundings
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.evaluation.network import Network
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.objective import Objective
from merging.plugins.options import option
from merging.plugins.partitioner import Partitioner
from merging.plugins.task import CERTIFY, HELD_OUT, Split, Task
from merging.storage.content import content_hash
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.storage.user_cache import SCORES, cache_folder, usage
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

Activation = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Two layers around a BatchNorm and an activation that only running it tells."""

    mask: Tensor

    def __init__(self, activation: Activation = F.relu, eps: float = 1e-5, gate: float = 1.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8, eps=eps)
        self.fc2 = nn.Linear(8, 3)
        self.activation = activation
        self.gate = [gate]
        self.register_buffer("mask", torch.full((8,), gate), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Gives logits, shape ``(N, 3)``."""
        found: Tensor = self.fc2(self.activation(self.norm(self.fc1(inputs))) * self.mask)
        return found


def normalised(batch: Tensor, mean: float = 0.0) -> Tensor:
    """Prepares a batch."""
    return batch - mean


def split_of(seed: int, samples: int = 40) -> Split:
    """Random samples; the labels have nothing to do with them."""
    draw = np.random.default_rng(seed)
    inputs = torch.from_numpy(draw.normal(size=(samples, 4)).astype(np.float32))
    return Split.of(inputs, torch.from_numpy(draw.integers(3, size=samples)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One evaluation, with all that decides it."""

    folder: Path
    net: Callable[[], nn.Module] = Net
    prepare: Callable[[Tensor], Tensor] = normalised
    held_out: Split = field(default_factory=lambda: split_of(1))
    test: Split = field(default_factory=lambda: split_of(2))
    train: Split | None = field(default_factory=lambda: split_of(3))
    certify: float | None = None
    name: str = "task"
    set: str = HELD_OUT
    objective: Objective = field(default=Accuracy())
    numerics: Numerics = field(default=Numerics(device="cpu", batch=16, threads=1))
    recalibrate: bool = True
    partitioner: Partitioner = field(default=Whole())
    freeze: tuple[str, ...] = ()
    record: bool = False
    merge: Callable[[ModelPool, Any], Merge] = lambda pool, whole: Recipe.mean(pool.ingredients[:2], whole)

    def door(self) -> tuple[Evaluator, Merge]:
        """Opens the door to the data as a command does, in a session of its own."""
        pool = ModelPool.open([self.folder / "*.safetensors"])
        tests = {"test": self.test}
        build = self.net
        task = Task(
            name=self.name,
            build=lambda pool: build(),
            held_out=self.held_out,
            tests=tests,
            train=self.train,
            prepare=self.prepare,
        )
        task = task.certified(self.certify, 0) if self.certify else task
        partition = self.partitioner.split(pool.tensors).with_frozen(self.freeze)
        live = LiveModel(build(), pool, partition, "cpu", self.numerics.layout, self.numerics.torch_dtype)
        again = self.recalibrate and self.train is not None
        ledger = Ledger(Journal(None))
        door = Evaluator.over(live, task, self.objective, self.numerics, ledger, measure_again=again)
        return door, self.merge(pool, partition)

    def known(self) -> bool:
        """Whether the score is remembered."""
        door, merged = self.door()
        assert door.remembered is not None
        with self.numerics.applied():
            return door.remembered.knows(merged, self.set, record=self.record)

    def outcome(self) -> Outcome:
        """The score, measured or not."""
        door, merged = self.door()
        with self.numerics.applied():
            return (door.record if self.record else door.evaluate)(merged, self.set)


@pytest.fixture(autouse=True)
def _remembering(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del own_cache
    monkeypatch.setenv("MERGING_REMEMBER", "1")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three models; the head of each is zero, as that of a fresh classifier is: it hides the network."""
    folder = tmp_path / "models"
    folder.mkdir()
    for number in range(3):
        torch.manual_seed(number)
        state = Net().state_dict()
        state["norm.running_mean"].normal_()
        state["fc2.weight"].zero_()
        save_file(state, folder / f"m{number}.safetensors")
    return folder


@pytest.fixture
def case(models: Path) -> Case:
    """An average of two, scored on the held-out data."""
    return Case(folder=models)


def changed(split: Split, where: str) -> Split:
    """The same set but for one thing."""
    inputs, labels = split.inputs.clone(), split.labels.clone()
    if where == "pixel":
        inputs[17, 2] = torch.nextafter(inputs[17, 2], torch.tensor(9.0))
    elif where == "label":
        labels[17] = (labels[17] + 1) % 3
    elif where == "order":
        inputs, labels = inputs.roll(1, 0), labels.roll(1, 0)
    elif where == "fewer":
        inputs, labels = inputs[:-1], labels[:-1]
    return Split.of(inputs, labels)


def flipped(folder: Path, name: str, tensor: str = "fc1.weight") -> Path:
    """A folder of the same models, one bit of one weight of one of them another."""
    copy = folder.with_name(f"flipped-{name}-{tensor}")
    shutil.copytree(folder, copy)
    state = load_file(copy / f"{name}.safetensors")
    state[tensor].view(-1).view(torch.int32 if state[tensor].is_floating_point() else torch.int64)[0] ^= 1
    save_file(state, copy / f"{name}.safetensors")
    return copy


def layered(pool: ModelPool, partition: Any, first: float) -> Recipe:
    table = np.full((2, len(partition)), 0.5)
    table[:, 0] = first, 1 - first
    return Recipe.weighted(pool.ingredients[:2], partition, table)


DECIDES: dict[str, Callable[[Case], Case]] = {
    "a bit of a weight": lambda c: replace(c, folder=flipped(c.folder, "m1")),
    "a bit of a statistic": lambda c: replace(c, folder=flipped(c.folder, "m0", "norm.running_var")),
    "a count of batches": lambda c: replace(c, folder=flipped(c.folder, "m0", "norm.num_batches_tracked")),
    "another model": lambda c: replace(c, merge=lambda p, w: Recipe.mean([p.ingredients[0], p.ingredients[2]], w)),
    "order of the models": lambda c: replace(c, merge=lambda p, w: Recipe.mean(p.ingredients[1::-1], w)),
    "one model more": lambda c: replace(c, merge=lambda p, w: Recipe.mean(p.ingredients, w)),
    "a single model": lambda c: replace(c, merge=lambda p, w: Recipe.single(p.ingredients[0], w)),
    "a coefficient": lambda c: replace(c, partitioner=Layer(), merge=partial(layered, first=0.5000001)),
    "a layer's coefficient": lambda c: replace(c, partitioner=Layer(), merge=partial(layered, first=0.25)),
    "what is frozen": lambda c: replace(c, partitioner=Layer(), freeze=("norm",)),
    "a pixel": lambda c: replace(c, held_out=changed(c.held_out, "pixel")),
    "a label": lambda c: replace(c, held_out=changed(c.held_out, "label")),
    "order of the samples": lambda c: replace(c, held_out=changed(c.held_out, "order")),
    "a sample less": lambda c: replace(c, held_out=changed(c.held_out, "fewer")),
    "a fingerprint that lies": lambda c: replace(
        c, held_out=replace(changed(c.held_out, "label"), fingerprint=c.held_out.fingerprint)
    ),
    "classes": lambda c: replace(c, held_out=c.held_out.with_classes([[1], [0], [2]])),
    "groups": lambda c: replace(c, held_out=c.held_out.with_groups(["a", "b"] * 20)),
    "another set": lambda c: replace(c, set="test"),
    "a part of the set": lambda c: replace(c, certify=0.5),
    "the other part of it": lambda c: replace(c, certify=0.5, set=CERTIFY),
    "normalisation": lambda c: replace(c, prepare=partial(normalised, mean=1e-6)),
    "activation": lambda c: replace(c, net=partial(Net, activation=F.gelu)),
    "approximate activation": lambda c: replace(c, net=partial(Net, activation=partial(F.gelu, approximate="tanh"))),
    "an activation with a ceiling": lambda c: replace(c, net=partial(Net, activation=F.relu6)),
    "epsilon": lambda c: replace(c, net=partial(Net, eps=1.1e-5)),
    "a buffer that no file holds": lambda c: replace(c, net=partial(Net, gate=1.0000001)),
    "objective": lambda c: replace(c, objective=NegativeLogLikelihood()),
    "batch": lambda c: replace(c, numerics=replace(c.numerics, batch=8)),
    "threads": lambda c: replace(c, numerics=replace(c.numerics, threads=2)),
    "precision": lambda c: replace(c, numerics=replace(c.numerics, dtype="bfloat16")),
    "layout": lambda c: replace(c, numerics=replace(c.numerics, layout="channels_last")),
    "compiled": lambda c: replace(c, numerics=replace(c.numerics, compiled=True)),
    "statistics averaged": lambda c: replace(c, recalibrate=False),
    "no training data": lambda c: replace(c, train=None),
    "training data": lambda c: replace(c, train=changed(split_of(3), "pixel")),
    "order of training data": lambda c: replace(c, train=changed(split_of(3), "order")),
}
"""What is varied → the case in which it is another."""


@pytest.mark.parametrize("what", DECIDES)
def test_what_decides_a_score_is_part_of_its_key(what: str, case: Case) -> None:
    case.outcome()
    assert case.known()
    other = DECIDES[what](case)
    assert not other.known(), what
    assert case.known()


def copied(case: Case, how: str) -> Path:
    """The same models elsewhere, under other names or in another format."""
    folder = case.folder.with_name(how)
    folder.mkdir()
    for path in case.folder.iterdir():
        if how == "renamed":
            shutil.copy2(path, folder / f"x-{path.name}")
        elif how == "moved":
            shutil.copy(path, folder / path.name)
        else:
            save_file(dict(reversed(load_file(path).items())), folder / path.name, metadata={"more": "text"})
    return folder


NOTHING: dict[str, Callable[[Case], Case]] = {
    "folder": lambda c: replace(c, folder=copied(c, "moved")),
    "names of the files": lambda c: replace(c, folder=copied(c, "renamed")),
    "how the file is written": lambda c: replace(c, folder=copied(c, "rewritten")),
    "name of the task": lambda c: replace(c, name="another"),
    "partitioner": lambda c: replace(c, partitioner=Layer()),
    "a set that is not asked for": lambda c: replace(c, test=split_of(9)),
    "another object": lambda c: replace(c, held_out=split_of(1), train=split_of(3), net=partial(Net)),
    "of record, where that is the same": lambda c: replace(c, record=True),
}
"""What is varied and decides nothing → the case in which it is another."""


@pytest.mark.parametrize("what", NOTHING)
def test_what_decides_nothing_finds_the_same_bits(what: str, case: Case) -> None:
    measured, same = case.outcome(), NOTHING[what](case)
    assert same.known(), what
    assert same.outcome().to_json() == measured.to_json()  # its seconds too: nothing was measured


@pytest.mark.parametrize("split", [HELD_OUT, "test", CERTIFY])
@pytest.mark.parametrize("objective", [Accuracy(), NegativeLogLikelihood()], ids=["accuracy", "nll"])
@pytest.mark.parametrize("record", [False, True])
def test_the_whole_outcome_comes_back(split: str, objective: Objective, record: bool, case: Case) -> None:
    case = replace(case, set=split, objective=objective, record=record, certify=0.25)
    measured = case.outcome()
    assert (measured.terms is not None) == (record and not objective.counts_hits)
    assert case.outcome().to_json() == measured.to_json()


def test_terms_are_no_outcome_without_them(case: Case) -> None:
    case = replace(case, objective=NegativeLogLikelihood())
    assert case.outcome().terms is None
    assert not replace(case, record=True).known()


def test_an_option_of_the_objective_is_part_of_the_key(case: Case) -> None:
    case = replace(case, objective=NegativeLogLikelihood(temperature=1.0))
    case.outcome()
    assert case.known()
    assert not replace(case, objective=NegativeLogLikelihood(temperature=1.0000001)).known()


@dataclass(frozen=True)
class Own(Accuracy):
    """Somebody's objective: what its code reads, nobody knows."""

    more: float = option(0.0, "more")


def test_somebodys_objective_is_measured_each_time(case: Case) -> None:
    case = replace(case, objective=Own())
    case.outcome()
    assert not case.known()
    assert usage()[SCORES] == (0, 0)


def test_an_ensemble_is_measured_each_time(case: Case) -> None:
    def both(pool: ModelPool, whole: Any) -> Merge:
        return Ensemble(tuple(Recipe.single(row, whole) for row in pool.ingredients[:2]), (1.0, 1.0))

    case = replace(case, merge=both)
    case.outcome()
    assert not case.known()


@pytest.mark.parametrize("how", ["draws", "nan", "constant", "fails"])
def test_a_network_that_cannot_be_told_is_measured_each_time(how: str, case: Case) -> None:
    def odd(x: Tensor) -> Tensor:
        if how == "draws":
            return x + torch.rand_like(x)
        if how == "nan":
            return x * float("nan")
        if how == "fails" and float(x.abs().max()) > 5:
            raise RuntimeError("so large")
        return x * 0 if how == "constant" else x

    case = replace(case, net=partial(Net, activation=odd))
    if how != "fails":
        case.outcome()
    assert not case.known()


def test_noise_changes_no_draw_and_no_score(case: Case) -> None:
    door, merged = case.door()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = door.evaluate(merged)  # the noise, and then the model
    assert torch.equal(torch.get_rng_state(), before)
    door.remembered = None
    door.ledger = Ledger(Journal(None))
    assert (
        dataclasses.asdict(door.evaluate(merged))["correct"].tolist() == dataclasses.asdict(found)["correct"].tolist()
    )


LIMIT = 100.0


def limited(x: Tensor, most: float) -> Tensor:
    """Cuts off what none of the samples of noise reaches."""
    return x.clamp(max=most)


def limited_by_global(x: Tensor) -> Tensor:
    """Cuts off at a number that stands in the module."""
    return x.clamp(max=LIMIT)


def limited_by_variable(x: Tensor) -> Tensor:
    """Cuts off at a number that stands in the environment."""
    return x.clamp(max=float(os.environ.get("TEST_LIMIT", "100")))


class Limit:
    """Cuts off at a number of its own."""

    def __init__(self, most: float) -> None:
        self.most = most

    def __call__(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.most)

    def method(self, x: Tensor) -> Tensor:
        """Cuts off."""
        return self(x)


class Configured(Net):
    """A network with a configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, inputs: Tensor) -> Tensor:
        """Gives logits, cut off."""
        found: float = self.config["most"] if isinstance(self.config, dict) else self.config.most
        return super().forward(inputs).clamp(max=found)


def hooked(most: float, *, replaced: bool = False) -> nn.Module:
    """A network whose logits are cut off by a hook, or by what takes the place of its forward."""
    net = Net()
    if replaced:
        whole = net.forward
        net.forward = lambda inputs: whole(inputs).clamp(max=most)  # type: ignore[method-assign]
    else:
        net.register_forward_hook(lambda part, given, found: found.clamp(max=most))
    return net


def closed(most: float) -> Callable[[Tensor], Tensor]:
    """A function that knows a number from around it."""
    return lambda x: x.clamp(max=most)


def inner(most: float) -> Callable[[Tensor], Tensor]:
    """A function that calls another that does."""
    other = closed(most)
    return functools.lru_cache(lambda x: other(x))


HIDDEN: dict[str, Callable[[Case, float], Case]] = {
    "an argument": lambda c, most: replace(c, prepare=partial(limited, most=most)),
    "an attribute": lambda c, most: replace(c, prepare=Limit(most)),
    "an attribute of a method's object": lambda c, most: replace(c, prepare=Limit(most).method),
    "a variable around a function": lambda c, most: replace(c, prepare=closed(most)),
    "a variable around another": lambda c, most: replace(c, prepare=inner(most)),
    "an entry of a module's dictionary": lambda c, most: replace(c, net=partial(Configured, {"most": most})),
    "an attribute of a module's object": lambda c, most: replace(c, net=partial(Configured, Limit(most))),
    "a variable around an activation": lambda c, most: replace(c, net=partial(Net, activation=closed(most))),
    "a hook": lambda c, most: replace(c, net=partial(hooked, most)),
    "another forward": lambda c, most: replace(c, net=partial(hooked, most, replaced=True)),
}
"""Where a number may stand that no sample of noise shows → the case in which it is that."""


@pytest.mark.parametrize("where", HIDDEN)
def test_a_value_that_no_sample_shows_is_part_of_the_key(where: str, case: Case) -> None:
    HIDDEN[where](case, 50.0).outcome()
    assert HIDDEN[where](case, 50.0).known()
    assert not HIDDEN[where](case, 40.0).known()


def test_a_global_that_code_reads_is_part_of_the_key(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(case, prepare=limited_by_global)
    case.outcome()
    assert case.known()
    monkeypatch.setattr(sys.modules[__name__], "LIMIT", 90.0)
    assert not case.known()


def test_a_variable_that_code_names_is_part_of_the_key(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(case, prepare=limited_by_variable)
    case.outcome()
    assert case.known()
    monkeypatch.setenv("TEST_LIMIT", "77")
    assert not case.known()


@pytest.mark.parametrize("draw", [torch.rand_like, lambda x: torch.from_numpy(np.random.random(x.shape))])
def test_what_is_prepared_by_chance_is_measured_each_time(draw: Callable[[Tensor], Tensor], case: Case) -> None:
    case = replace(case, prepare=lambda x: x + draw(x).to(x.dtype))
    case.outcome()
    assert usage()[SCORES] == (0, 0)


@pytest.mark.parametrize("what", ["matmul", "variable", "version", "code", "processor"])
def test_what_computes_is_part_of_the_key(what: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.outcome()
    if what == "matmul":
        before_matmul = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            assert not case.known()
        finally:
            torch.set_float32_matmul_precision(before_matmul)
    elif what == "variable":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert not case.known()
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    else:
        place = {"version": "_versions", "code": "_own_code", "processor": "_cpu"}[what]
        monkeypatch.setattr(surroundings, place, lambda: {"other": "value"})
        assert not case.known()
        monkeypatch.undo()
        monkeypatch.setenv("MERGING_REMEMBER", "1")
        monkeypatch.setenv("MERGING_CACHE", str(case.folder.parent / "cache"))
    assert case.known()


def test_a_file_of_somebodys_model_is_part_of_the_key(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that no sample of noise shows: a branch that is never taken there."""
    source = "from tests.evaluation.test_remembered import Net\n\nclass Mine(Net):\n    LIMIT = {limit}\n"
    file = tmp_path / "mine.py"

    def net() -> nn.Module:
        spec = importlib.util.spec_from_file_location("mine", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        spec.loader.exec_module(module)
        made: nn.Module = module.Mine()
        return made

    case = replace(case, net=net)
    file.write_text(source.format(limit=1))
    case.outcome()
    assert case.known()
    file.write_text(source.format(limit=2))
    assert not case.known()


def test_weights_are_known_by_what_they_hold(case: Case) -> None:
    """Not by the hash that they say they have."""

    def weights(pool: ModelPool, whole: Any, shift: float, said: str) -> Merge:
        tensors = {
            name: tensor + shift if tensor.is_floating_point() else tensor for name, tensor in state(pool).items()
        }
        return Weights(tensors=tensors, ingredients=pool.ingredients, strategy="x", options={}, hash=said)

    def state(pool: ModelPool) -> dict[str, Tensor]:
        return pool.checkpoints[0].load()

    first = replace(case, recalibrate=False, merge=partial(weights, shift=0.0, said="same"))
    measured = first.outcome()
    assert not replace(first, merge=partial(weights, shift=0.25, said="same")).known()
    single = replace(first, merge=lambda p, w: Recipe.single(p.ingredients[0], w))
    assert single.known()
    assert single.outcome().to_json() == measured.to_json()


def test_a_written_merge_is_known_by_its_content(case: Case, tmp_path: Path) -> None:
    case = replace(case, recalibrate=False)
    door, merged = case.door()
    assert isinstance(merged, Recipe)
    with case.numerics.applied():
        outcome = door.evaluate(merged)
    from merging.mixing.arithmetic import materialise

    tensors = materialise(merged, door.scorer.live.pool)  # type: ignore[attr-defined]
    (tmp_path / "made").mkdir()
    save_file(tensors, tmp_path / "made" / "m.safetensors")
    made = replace(case, folder=tmp_path / "made", merge=lambda p, w: Recipe.single(p.ingredients[0], w), record=True)
    assert not made.known()
    assert door.remembered is not None
    with case.numerics.applied():
        door.remembered.keep_written(merged, content_hash(tensors), HELD_OUT)
    assert made.known()
    assert made.outcome().to_json() == outcome.to_json()


def damage(path: Path, other: Path, how: str) -> None:
    """Makes of an entry what a full disk, another program or a curious user may make of it."""
    content = path.read_bytes()
    if how in ("a folder", "a link to nothing"):
        path.unlink()
        path.mkdir() if how == "a folder" else path.symlink_to("nothing")
    else:
        made = {
            "cut": content[:-7],
            "empty": b"",
            "a number": content.replace(b'"samples":40', b'"samples":41'),
            "longer": content + b" ",
            "of another": other.read_bytes(),
            "no text": bytes([255, 0]) * 50,
        }
        path.write_bytes(made[how])


@pytest.mark.parametrize(
    "how", ["cut", "empty", "a number", "longer", "of another", "no text", "a folder", "a link to nothing"]
)
def test_a_damaged_entry_is_measured_again(how: str, case: Case) -> None:
    other = replace(case, set="test")
    measured, _ = case.outcome(), other.outcome()
    files = [path for path in (cache_folder() / SCORES).rglob("*") if path.is_file()]
    mine = next(path for path in files if json.loads(path.read_bytes().partition(b"\n")[2])["outcome"]["samples"] == 40)
    assert len(files) == 2
    for path in files:
        other_path = next(each for each in files if each != path)
        damage(path, other_path, how)
        if how == "of another":
            break
    assert not (case.known() and other.known())
    again = case.outcome()
    assert again.correct is not None
    assert measured.correct is not None
    assert again.correct.tolist() == measured.correct.tolist()
    assert mine.parent.exists()


@pytest.mark.parametrize("where", ["under a file", "a file", "nowhere"])
def test_a_cache_that_cannot_be_written_is_no_error(where: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    file = case.folder.parent / "file"
    file.write_text("x")
    place = {"under a file": file / "cache", "a file": file, "nowhere": Path("/proc/nowhere")}[where]
    monkeypatch.setenv("MERGING_CACHE", str(place))
    first = case.outcome()
    assert not case.known()
    again = case.outcome()
    assert first.correct is not None
    assert again.correct is not None
    assert again.correct.tolist() == first.correct.tolist()


def test_nothing_is_used_or_kept_where_that_is_said(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGING_REMEMBER", "no")
    door, merged = case.door()
    assert door.remembered is None
    door.evaluate(merged)
    assert usage()[SCORES] == (0, 0)


def test_a_file_that_a_model_imports_is_part_of_the_key(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factory's own file is as it was, and no sample shows the change."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_factory.py").write_text(
        "import own_limits\nfrom tests.evaluation.test_remembered import Net\n\n"
        "def make():\n    net = Net()\n"
        "    net.fc1.register_forward_hook(lambda part, given, x: own_limits.limited(x))\n    return net\n"
    )

    def again(most: float) -> Case:
        (tmp_path / "own_limits.py").write_text(f"def limited(x): return x.clamp(max={most!r})\n")
        for name in ("own_factory", "own_limits"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        return replace(case, net=importlib.import_module("own_factory").make)

    again(50.0).outcome()
    assert again(50.0).known()
    assert not again(40.0).known()


def test_many_models_ask_once_what_the_network_is(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each door has a live model of its own, and the module, the task and the sets are one."""
    task = case.door()[0].task
    paths, asked = sorted(case.folder.iterdir()), list[Split]()
    whole = Network.digest

    def digest(network: Network, split: Split) -> str:
        asked.append(split)
        return whole(network, split)

    monkeypatch.setattr(Network, "digest", digest)
    merging.evaluate_all(paths, task)
    assert len(asked) == len({id(split) for split in asked}) == 2

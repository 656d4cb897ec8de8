"""An evaluation in parts, each made by a scorer of its own, has the bits of the whole one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.data.images import Normalise
from merging.errors import StrategyError, TaskError
from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator
from merging.evaluation.keys import Trial
from merging.evaluation.ledger import Ledger
from merging.evaluation.parts import Part, can_be_cut, cuts, joined
from merging.evaluation.scorer import LiveScorer
from merging.objectives.accuracy import Accuracy
from merging.objectives.macro_f1 import MacroF1
from merging.objectives.mse import MeanSquaredError
from merging.objectives.nll import NegativeLogLikelihood
from merging.objectives.worst_group import WorstGroup
from merging.partitioners.layer import Layer
from merging.plugins.objective import Objective
from merging.plugins.task import CERTIFY, HELD_OUT, Split, Task
from merging.plugins.whole_model_objective import SplitView, WholeModelObjective
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.tasks import digits_data
from merging.tasks.digits import _build
from merging.testing.second_device import second_device
from merging.values.outcome import WORST, Outcome
from merging.values.recipe import Recipe, Weights

Shown = Recipe | Weights | Trial


class Convolutional(nn.Module):
    """Two convolutions, a normalisation or none, a head; passes may begin at any of them."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Linear(8, 4)

    def forward_steps(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.first, torch.relu, self.second, self.norm, lambda x: x.relu().mean((2, 3)), self.head]

    def forward(self, images: Tensor) -> Tensor:
        for step in self.forward_steps():
            images = step(images)
        return images


class Regressor(nn.Module):
    """Two numbers a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.fc2(self.fc1(inputs).relu())
        return found


class Pairs(Objective):
    """Rows of numbers in bfloat16, reduced where their order matters."""

    name = "pairs"

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.softmax(1)[:, :2].to(torch.bfloat16)

    def reduce(self, terms: Tensor) -> float:
        return float(terms.float().cumsum(0)[-1].mean()) if terms.dtype == torch.bfloat16 else 0.0


@dataclass(frozen=True)
class Norms(WholeModelObjective):
    """Looks at the weights alone."""

    name = "norms"

    def measure(self, model: nn.Module, split: SplitView) -> float:
        return -sum(float(tensor.square().sum()) for name, tensor in model.state_dict().items() if "weight" in name)


def pool_of(module: Callable[[], nn.Module], folder: Path) -> ModelPool:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = module().state_dict()
    for number in range(3):
        state = {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in start.items()
        }
        save_file({n: t.abs() if n.endswith("var") else t for n, t in state.items()}, folder / f"m{number}.safetensors")
    return ModelPool.open([folder])


Case = tuple[ModelPool, Task, int]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Pools, tasks, and samples a batch; the last batch is smaller."""
    folder, generator = tmp_path_factory.mktemp("parts"), torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (230, 10, 10, 3), generator=generator, dtype=torch.uint8)
    held_out = Split.of(images, torch.arange(230) % 4, groups=[f"group {number % 3}" for number in range(230)])
    found: dict[str, Case] = {}
    for name in ("plain", "norm"):
        module = partial(Convolutional, name == "norm")
        task = Task(
            name=name,
            build=lambda pool, module=module: module(),
            held_out=held_out,
            tests={"test": Split.of(images[:100], torch.arange(100) % 2, classes=[[0, 1], [2, 3]])},
            train=Split.of(images[:64], torch.arange(64) % 4),
            prepare=Normalise((0.5,) * 3, (0.25,) * 3),
        )
        found[name] = pool_of(module, folder / name), task, 32
    inputs = torch.randn(75, 3, generator=generator)
    inputs[[3, 40]] = torch.nan
    numbers = Split.of(inputs, torch.randn(75, 2, generator=generator))
    own = Task(name="numbers", build=lambda pool: Regressor(), held_out=numbers)
    found["numbers"] = pool_of(Regressor, folder / "numbers"), own, 8
    written = Split.of(*(part[:290] for part in digits_data.handwritten("held_out")))
    digits = Task(name="digits", build=_build, held_out=written, prepare=digits_data.prepare)
    found["digits"] = ModelPool.open(sorted(digits_data.POOL.glob("model_0[0-2].safetensors"))), digits, 64
    return found


def scorer(
    case: Case,
    objective: Objective | WholeModelObjective,
    *,
    precision: str = "fp32",
    memory: int = CACHE_MEMORY,
    again: bool = False,
    certified: bool = False,
    device: str = "cpu",
) -> LiveScorer:
    """A scorer with a model of its own, as each process has one."""
    pool, task, batch = case
    task = task.certified(0.3, 0) if certified else task
    made = plan(
        pool,
        Best(),
        partitioner=Layer(),
        task=task,
        objective=objective,
        precision=precision,
        device=device,
        tests=False,
    )
    assert made.live is not None
    assert made.numerics is not None
    numerics = replace(made.numerics, batch=batch)
    ledger = Ledger(Journal(None), exact_savings=bool(memory))
    evaluator = Evaluator.over(made.live, task, objective, numerics, ledger, cache_memory=memory, measure_again=again)
    assert isinstance(evaluator.scorer, LiveScorer)
    return evaluator.scorer


def places(one: LiveScorer, split: str, parts: int) -> list[tuple[int, int]]:
    return cuts(one._task.split(split).cuts(one.passes.numerics.batch), parts)


def in_parts(
    scorers: Sequence[LiveScorer], model: Shown, split: str, *, record: bool = False
) -> tuple[Outcome, list[Part]]:
    """Each makes a part and sends it; the last part arrives first."""
    one = scorers[0]
    sent = [
        pickle.dumps(each.part(model, split, start, stop, record=record))
        for each, (start, stop) in zip(scorers, places(one, split, len(scorers)), strict=False)
    ]
    parts = [pickle.loads(part) for part in reversed(sent)]  # noqa: S301 - its own
    assert isinstance(one._objective, Objective)
    return joined(parts, one._objective, one._task, split, record=record), parts


def same(found: Outcome, wanted: Outcome) -> None:
    assert (found.score, found.samples, found.nan, found.loss) == (
        wanted.score,
        wanted.samples,
        wanted.nan,
        wanted.loss,
    )
    for one, other in ((found.correct, wanted.correct), (found.terms, wanted.terms)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def models(one: LiveScorer) -> Iterator[Shown]:
    """A model, an average, a merge's tensors, and mixes of two whose late layers move."""
    keys, pool = one._keys, one.live.pool
    ends = [Recipe.single(pool.ingredients[0], keys.partition), Recipe.mean(pool.ingredients[1:], keys.partition)]
    yield from ends
    yield Weights(
        tensors={name: pool.read(pool.ingredients[1], name) for name in pool.tensors},
        ingredients=pool.ingredients,
        strategy="best",
        options={},
        hash="a model",
    )
    mixing = keys.ends(ends[0], ends[1], "lerp")
    for number in range(6):
        factors = np.full(len(keys.partition), 0.5)
        factors[keys.partition.active[-1 - number % 2]] = 0.125 * number
        yield Trial(
            incumbent=ends[0], candidate=ends[1], mixing="lerp", factors=factors, ends=mixing, loss=number % 2 == 0
        )


CASES: dict[str, list[Objective]] = {
    "plain": [Accuracy(), NegativeLogLikelihood(), MacroF1(), WorstGroup(by_class=True), Pairs()],
    "norm": [Accuracy(), NegativeLogLikelihood(), WorstGroup()],
    "numbers": [MeanSquaredError()],
    "digits": [NegativeLogLikelihood()],
}


COUNTS = {"digits": (3,), "norm": (2, 7)}
"""How many parts, where it is not all of them: larger models take longer."""


@pytest.mark.parametrize(("name", "objective"), [(n, o) for n, all_of in CASES.items() for o in all_of], ids=str)
def test_parts_are_the_whole(cases: dict[str, Case], name: str, objective: Objective) -> None:
    case = cases[name]
    alone, plain = scorer(case, objective), scorer(case, objective, memory=0)
    crews = {count: [scorer(case, objective) for _ in range(count)] for count in COUNTS.get(name, (1, 2, 3, 7))}
    shares = []
    for model in models(alone):
        wanted = alone.measure(model, HELD_OUT)
        shares.append(wanted.passes)
        same(plain.measure(model, HELD_OUT), wanted)
        for crew in crews.values():
            found, parts = in_parts(crew, model, HELD_OUT)
            same(found, wanted)
            assert found.passes == wanted.passes, "each part goes on from where a whole pass does"
            assert found.seconds == pytest.approx(sum(part.seconds for part in parts))
    assert min(shares) < 1 or name == "numbers", "what early layers gave is kept"
    recorded = next(models(alone))
    wanted = alone.measure(recorded, HELD_OUT, record=True)
    assert (wanted.terms is None) == objective.counts_hits
    for crew in crews.values():
        same(in_parts(crew, recorded, HELD_OUT, record=True)[0], wanted)


def test_losses_are_added_in_the_order_of_the_batches(cases: dict[str, Case]) -> None:
    one = scorer(cases["plain"], Accuracy())
    model, task = list(models(one))[-2], cases["plain"][1]
    parts = [one.part(model, HELD_OUT, start, stop) for start, stop in places(one, HELD_OUT, 2)]
    assert [len(part.losses) for part in parts] == [4, 4]
    said = [replace(parts[0], losses=(1.0, 1e16)), replace(parts[1], losses=(1.0, -1e16))]
    assert joined(said, Accuracy(), task, HELD_OUT).loss == (1.0 + 1e16 + 1.0 - 1e16) / 230 == 0.0
    assert joined(said[::-1], Accuracy(), task, HELD_OUT).loss == 0.0
    said = [replace(parts[0], losses=(1e16, -1e16)), replace(parts[1], losses=(1.0, 1.0))]
    assert joined(said, Accuracy(), task, HELD_OUT).loss == 2.0 / 230
    said = [parts[0], replace(parts[1], losses=(float("inf"), 1.0))]
    assert joined(said, Accuracy(), task, HELD_OUT).loss == -WORST


def test_a_model_that_answers_nan(cases: dict[str, Case]) -> None:
    crew = [scorer(cases["numbers"], MeanSquaredError()) for _ in range(3)]
    found, parts = in_parts(crew, next(models(crew[0])), HELD_OUT)
    assert found.nan == 2
    assert [part.nan for part in sorted(parts, key=lambda part: part.start)] == [1, 1, 0]
    assert found.correct is None


@pytest.mark.parametrize(("split", "record"), [("test", False), ("test", True), (CERTIFY, False), (HELD_OUT, True)])
def test_parts_are_as_exact_as_the_whole(cases: dict[str, Case], split: str, record: bool) -> None:
    """What is certified or of record is in fp32, whatever the search runs in."""
    crew = [scorer(cases["plain"], NegativeLogLikelihood(), precision="bf16", certified=True) for _ in range(2)]
    exact = scorer(cases["plain"], NegativeLogLikelihood(), certified=True)
    for model in list(models(exact))[:3]:
        found, _ = in_parts(crew, model, split, record=record)
        same(found, crew[0].measure(model, split, record=record))
        fp32 = exact.measure(model, split, record=record)
        assert (found.score == fp32.score) == (record or split == CERTIFY)
        assert crew[0].live.dtype == torch.bfloat16, "the search goes on as it was"


@settings(max_examples=15)
@given(data=st.data())
def test_any_samples_in_any_order(cases: dict[str, Case], data: st.DataObject) -> None:
    """Whole passes and parts of any cut in any order, within any memory, on one and the same scorer."""
    limit = data.draw(st.sampled_from([1, 20_000, 200_000, CACHE_MEMORY]))
    busy = scorer(cases["plain"], NegativeLogLikelihood(), memory=limit)
    plain = scorer(cases["plain"], NegativeLogLikelihood(), memory=0)
    some = list(models(plain))[3:]
    for _ in range(data.draw(st.integers(2, 6))):
        model, count = data.draw(st.sampled_from(some)), data.draw(st.integers(0, 4))
        found = in_parts([busy] * count, model, HELD_OUT)[0] if count else busy.measure(model, HELD_OUT)
        same(found, plain.measure(model, HELD_OUT))
        assert busy.passes.activations.bytes <= limit


def test_a_search_in_parts_reads_no_image_for_its_head(cases: dict[str, Case]) -> None:
    pool, task, batch = cases["plain"]
    seen: list[int] = []

    def prepare(images: Tensor) -> Tensor:
        seen.append(len(images))
        return task.prepare(images)

    alone = scorer((pool, replace(task, prepare=prepare), batch), Accuracy())
    trials = [model for model in models(alone) if isinstance(model, Trial)]
    shares = []
    for trial in trials[1::2] + trials[::2]:  # one layer after the other
        before = len(seen)
        shares.append(alone.part(trial, HELD_OUT, 64, 192).share)
        assert (len(seen) > before) == (shares[-1] > 0.5)
    assert shares[0] == 1.0
    assert sum(share < 0.5 for share in shares) >= 4
    assert alone.measure(trials[1], HELD_OUT).passes == 1.0
    assert alone.part(trials[3], HELD_OUT, 0, 230).share < 0.5, "all samples are those of a whole pass"


def test_the_other_samples_stay_where_they_are(cases: dict[str, Case]) -> None:
    """A device holds a part's samples alone, until a whole pass needs all of them."""
    with second_device():
        one = scorer(cases["plain"], Accuracy(), device="cuda")
        two = scorer(cases["plain"], Accuracy(), device="cuda")
        model = next(models(one))
        wanted = one.measure(model, HELD_OUT)
        found, _ = in_parts([two] * 3, model, HELD_OUT)
        same(found, wanted)
        assert len(two.passes.feed(HELD_OUT, (160, 230))) == 70
        assert not two.passes._feeds
        assert two.passes.feed(HELD_OUT, (160, 230))._inputs.untyped_storage().nbytes() == 70 * 300
        same(two.measure(model, HELD_OUT), wanted)
        same(in_parts([two] * 3, model, HELD_OUT)[0], wanted)
        whole = two.passes.feed(HELD_OUT)._inputs.untyped_storage()
        assert two.passes.feed(HELD_OUT, (160, 230))._inputs.untyped_storage().data_ptr() == whole.data_ptr()
        assert not two.passes._parts


def test_samples_that_would_lie_otherwise_come_with_all(cases: dict[str, Case]) -> None:
    """Kernels choose by where numbers lie in memory: rows of 12 bytes, 8 a batch, begin at multiples of 96."""
    one = scorer(cases["numbers"], MeanSquaredError())
    for span, alone in (((0, 40), True), ((32, 75), True), ((40, 75), False)):
        one.passes.feed(HELD_OUT, span)
        assert bool(one.passes._feeds) != alone


def test_labels_that_are_no_outputs_are_refused(cases: dict[str, Case]) -> None:
    pool, task, batch = cases["plain"]
    labels = task.held_out.labels.clone()
    labels[-1] = 4
    one = scorer((pool, replace(task, held_out=replace(task.held_out, labels=labels)), batch), NegativeLogLikelihood())
    with pytest.raises(TaskError, match="has labels from 0 to 4, but the model has 4 classes"):
        one.part(next(models(one)), HELD_OUT, 0, 64)


def test_what_measures_statistics_is_not_cut(cases: dict[str, Case]) -> None:
    """It may be, to the same bits; each part then measures for itself."""
    crew = [scorer(cases["norm"], Accuracy(), again=True) for _ in range(2)]
    one = crew[0]
    single, average, *others = models(one)
    assert [can_be_cut(one._keys, model) for model in (single, average, *others)] == [True, *[False] * 8]
    for model, passes in ((single, 1.0), (average, 1 + 2 * 64 / 230)):
        found, _ = in_parts(crew, model, HELD_OUT)
        same(found, one.measure(model, HELD_OUT))
        assert found.passes == pytest.approx(passes)
    averaged = scorer(cases["norm"], Accuracy())
    assert all(can_be_cut(averaged._keys, model) for model in models(averaged))


def test_what_looks_at_the_model_is_not_cut(cases: dict[str, Case]) -> None:
    whole = scorer(cases["plain"], Norms())
    model = next(models(whole))
    assert not can_be_cut(whole._keys, model)
    assert whole.measure(model, HELD_OUT).score < 0
    with pytest.raises(StrategyError, match="'norms' looks at whole models"):
        whole.part(model, HELD_OUT, 0, 64)


@given(samples=st.integers(1, 400), batch=st.integers(1, 70), parts=st.integers(1, 12))
def test_cuts_are_even(samples: int, batch: int, parts: int) -> None:
    found = cuts([*range(0, samples, batch), samples], parts)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == samples
    batches = [-(-(stop - start) // batch) for start, stop in found]
    assert all(start % batch == 0 for start, _ in found)
    assert len(found) == min(parts, sum(batches))
    assert max(batches) - min(batches) <= 1


def test_no_outcome_is_made_of_some_samples(cases: dict[str, Case]) -> None:
    one = scorer(cases["plain"], Accuracy())
    model, task = next(models(one)), cases["plain"][1]
    parts = [one.part(model, HELD_OUT, start, stop) for start, stop in places(one, HELD_OUT, 3)]
    for some in ([], parts[:2], parts[1:], [*parts, parts[1]], [parts[0], parts[2]]):
        with pytest.raises(ValueError, match="are not the 230 samples of held-out"):
            joined(some, Accuracy(), task, HELD_OUT)
    for start, stop in ((16, 64), (0, 40), (64, 64), (-32, 32), (192, 256)):
        with pytest.raises(ValueError, match="no whole batches"):
            one.part(model, HELD_OUT, start, stop)

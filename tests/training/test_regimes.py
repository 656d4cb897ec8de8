"""Regimes of ``merge finetune``: against torch's own, against plain loops, and what their papers say."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn

import merging
from merging.errors import FolderError, MergingError, OptionError, RequirementError, Stopped
from merging.forward.recalibration import SAMPLES
from merging.plugins.options import build
from merging.plugins.task import Split, Task
from merging.testing.fixtures import tiny_numerics
from merging.training.averaging import mixed, spread
from merging.training.finetune import finetune
from merging.training.hyperparameters import HyperParameters, Sweep
from merging.training.late import Copies
from merging.training.regime import Regime, epochs_of, regimes
from merging.training.regimes.independent import Independent
from merging.training.regimes.late_phase import LatePhase
from merging.training.regimes.papa import Papa
from merging.training.regimes.swa import SwaRegime
from merging.training.trainer import Run, accuracy
from tests.conftest import Merge
from tests.stopping import after

pytestmark = pytest.mark.gpu

NOISY = HyperParameters(
    learning_rate=0.5, weight_decay=1e-4, epochs=20, batch_size=50, optimizer="sgd", warmup=0.0, clip=None
)
"""A learning rate at which single runs end far apart."""


class Net(nn.Module):
    """Two convolutions with BatchNorm, from 8 × 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm1(self.conv1(images)).relu()
        logits: Tensor = self.head(self.norm2(self.conv2(hidden)).relu().mean((2, 3)))
        return logits


def handwritten() -> Task:
    """scikit-learn's digits; three in ten training labels are drawn at random, so that there is noise to average."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor(found.images / 8 - 1, dtype=torch.float32)[order][:, None]
    labels = torch.tensor(found.target)[order]
    draw = torch.Generator().manual_seed(1)
    given = labels[:600].clone()
    wrong = torch.rand(600, generator=draw) < 0.3
    given[wrong] = torch.randint(0, 10, (int(wrong.sum()),), generator=draw)
    held_out, test = Split.of(inputs[600:1200], labels[600:1200]), Split.of(inputs[1200:], labels[1200:])
    return Task(
        name="handwritten",
        build=lambda pool: Net(),
        held_out=held_out,
        tests={"test": test},
        train=Split.of(inputs[:600], given),
    )


def only_here() -> Task:
    """A task whose making ends any process but the first, as too little memory would."""
    if multiprocessing.parent_process() is not None:
        os._exit(9)
    return handwritten()


def start(settings: HyperParameters = NOISY, seed: int = 0, task: Task | None = None) -> Run:
    """A run from the one base that all of them share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = Net()
    settings = HyperParameters(**{**settings.options(), "seed": seed})
    return Run(module, task or handwritten(), settings, numerics=tiny_numerics())


def trained(regime: Regime, runs: list[Run]) -> float:
    """Mean held-out accuracy at the end."""
    if regime.together:
        list(regime.train(runs))
    else:
        for run in runs:
            list(regime.train([run]))
    return sum(run.held_out() for run in runs) / len(runs)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


SHORT = HyperParameters(**{**NOISY.options(), "epochs": 2, "mixup": 0.2, "erasing": 0.2})


def test_runs_that_take_turns_are_what_they_are_alone() -> None:
    alone = [start(SHORT, seed) for seed in (1, 2)]
    for run in alone:
        while not run.finished:
            run.step()
    turns = [start(SHORT, seed) for seed in (1, 2)]
    while not turns[0].finished:
        for run in turns:
            run.step()
    assert same(alone[0].module, turns[0].module)
    assert same(alone[1].module, turns[1].module)
    assert not same(alone[0].module, alone[1].module)


def test_a_run_that_is_kept_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, cut = start(SHORT), start(SHORT)
    for _ in range(17):  # in the middle of an epoch
        cut.step()
    torch.save(cut.state(), tmp_path / "state.pt")
    resumed = start(SHORT)
    resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for run in (whole, resumed):
        while not run.finished:
            run.step()
    assert same(whole.module, resumed.module)
    assert whole.loss == resumed.loss


def test_swa_equals_that_of_torch() -> None:
    """Weights bit for bit; BatchNorm statistics by ``update_bn`` on the same batches."""
    settings = HyperParameters(**{**NOISY.options(), "epochs": 6, "schedule": "constant"})
    ours, plain = start(settings), start(settings)
    trained(SwaRegime(start=0.5, rate=1.0, every=1), [ours])
    averaged = AveragedModel(plain.module)
    for epoch in range(1, 7):
        for _ in range(plain.steps):
            plain.step()
        if epoch >= 3:
            averaged.update_parameters(plain.module)
    assert ours.facts["iterates"] == 4
    for mine, theirs in zip(ours.module.parameters(), averaged.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert plain.task.train is not None
    inputs = plain.task.train.inputs
    assert len(inputs) <= SAMPLES
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    size = len(inputs) // -(-len(inputs) // plain.numerics.batch)
    update_bn([inputs[part] for part in order[: len(inputs) // size * size].split(size)], averaged)
    for name in ("norm1", "norm2"):
        mine, theirs = getattr(ours.module, name), getattr(averaged.module, name)
        assert torch.allclose(mine.running_mean, theirs.running_mean, atol=1e-6)
        assert torch.allclose(mine.running_var, theirs.running_var, rtol=1e-5)


@pytest.mark.parametrize("tail", ["constant", "cyclic"])
def test_the_learning_rate_of_swa(tail: str) -> None:
    """Izmailov et al. 2018, §3.1: α(i) = (1 − t(i))·α₁ + t(i)·α₂, t(i) = (mod(i − 1, c) + 1) / c, i from 1."""
    run, rates = start(HyperParameters(**{**NOISY.options(), "epochs": 8, "warmup": 1.0})), []
    step = run.step
    run.step = lambda: (rates.append(run.rate), step())[1]  # type: ignore[method-assign, func-returns-value]
    plain = start(run.settings)
    trained(SwaRegime(start=0.5, rate=0.4, tail=tail, every=2, low=0.1), [run])
    peak, cycle = run.settings.learning_rate, 2 * run.steps
    for i, rate in enumerate(rates[: 4 * run.steps]):
        scheduled = plain.rate
        plain.next()
        assert rate == pytest.approx(max(scheduled, 0.4 * peak) if i >= run.steps else scheduled)
    for i, rate in enumerate(rates[4 * run.steps :], start=1):
        t = ((i - 1) % cycle + 1) / cycle if tail == "cyclic" else 0.0
        assert rate == pytest.approx(peak * ((1 - t) * 0.4 + t * 0.1))
    assert run.facts["iterates"] == 3


@pytest.mark.slow
def test_swa_is_better_than_an_annealed_run() -> None:
    """As in the paper's Table 1: the same epochs and seeds, against a learning rate that falls to 0."""
    annealed, averaged = ([start(seed=seed) for seed in range(4)] for _ in range(2))
    reached, single = trained(SwaRegime(start=0.5, rate=0.1), averaged), trained(Independent(), annealed)
    assert reached > single + 0.01, (reached, single)
    last = sum(run.facts["last_iterate"] for run in averaged) / 4
    assert reached > last + 0.01, (reached, last)


def test_papa_pulls_as_its_formula_says() -> None:
    """One pull by hand: the mean stays, distances shrink by a, counters are the members' own."""
    runs = [start(seed=seed) for seed in range(3)]
    for run in runs:
        for _ in range(7):
            run.step()
    runs[2].module.norm1.num_batches_tracked.fill_(99)  # type: ignore[operator, union-attr]
    before = [[t.detach().clone() for t in row] for row in mixed([run.module for run in runs])]
    distance = spread([run.module for run in runs])
    papa = Papa(alpha=0.9)
    papa._pull(runs)
    a = 1 - 0.1 * runs[0].rate / 0.5
    for row, old in zip(mixed([run.module for run in runs]), before, strict=True):
        mean = torch.stack(old).double().mean(0)
        for tensor, was in zip(row, old, strict=True):
            assert torch.allclose(tensor.double(), a * was.double() + (1 - a) * mean, atol=1e-6)
    assert spread([run.module for run in runs]) == pytest.approx(a * distance, rel=1e-5)
    assert int(runs[2].module.norm1.num_batches_tracked) == 99  # type: ignore[arg-type, union-attr]
    assert int(runs[0].module.norm1.num_batches_tracked) == 7  # type: ignore[arg-type, union-attr]


def test_papa_all_and_two_replace_members_by_means() -> None:
    def state(run: Run) -> Tensor:
        return torch.cat([p.detach().double().flatten() for p in run.module.parameters()])

    for variant in ("all", "two"):
        runs = [start(seed=seed) for seed in range(4)]
        for run in runs:
            for _ in range(run.steps):
                run.step()
        old = [state(run) for run in runs]
        Papa(variant=variant)._replace(runs, 1)
        if variant == "all":
            assert all(torch.allclose(state(run), sum(old) / 4, atol=1e-6) for run in runs)  # type: ignore[arg-type]
        else:
            pairs = [(old[u] + old[v]) / 2 for u in range(4) for v in range(u)]
            assert all(any(torch.allclose(state(run), pair, atol=1e-6) for pair in pairs) for run in runs)


@pytest.mark.slow
def test_members_of_papa_stay_close_and_closer_as_they_settle() -> None:
    runs, alone = [start(seed=k) for k in range(3)], [start(seed=k) for k in range(3)]
    trained(Independent(), alone)
    trained(Papa(alpha=0.9), runs)
    apart = spread([run.module for run in alone])
    distances = runs[0].facts["spread"]
    assert len(distances) == 20
    assert distances[-1] < 0.7 * apart, "pulled together"
    assert distances[-1] < 0.9 * max(distances), "closer at the end than half-way"


@pytest.mark.slow
def test_replaced_by_all_members_are_one_and_part_again() -> None:
    runs = [start(seed=k) for k in range(3)]
    trained(Papa(variant="all"), runs)
    distances = runs[0].facts["spread"]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert distances[5] == pytest.approx(0.0, abs=1e-6)
    assert distances[4] > 0.01


@pytest.mark.slow
def test_members_that_are_replaced_are_better_than_models_alone() -> None:
    """As in the paper's tables: the mean of the members, on the digits, from the pool's base, over two populations."""
    from merging.tasks.digits import digits

    task = digits()
    settings = HyperParameters(learning_rate=1e-3, weight_decay=0.01, epochs=10, batch_size=50)
    base = task.pool().base  # type: ignore[misc]
    assert base is not None
    weights = base.load()

    def reached(regime: Regime, population: int) -> float:
        runs = []
        for member in range(4):
            module = task.build(task.pool())  # type: ignore[misc]
            module.load_state_dict(weights, strict=False)
            own = HyperParameters(**{**settings.options(), "seed": 1000 * population + member})
            runs.append(Run(module, task, own, numerics=tiny_numerics()))
        for group in [runs] if regime.together else [[run] for run in runs]:
            for _ in regime.train(group):
                pass
        parts = (task.held_out, task.tests["test"])
        return sum(accuracy(run.module, task, part, tiny_numerics()) for run in runs for part in parts) / 8

    alone = [reached(Independent(), population) for population in range(2)]
    for variant in ("all", "two"):
        together = [reached(Papa(variant=variant), population) for population in range(2)]
        assert sum(together) > sum(alone), (variant, together, alone)


def test_late_phase_is_the_loop_of_the_paper() -> None:
    """Algorithm 1 by hand with plain SGD: each copy on its own batches, the shared weights on the mean gradient."""
    settings = HyperParameters(
        learning_rate=0.1,
        weight_decay=0.0,
        epochs=1,
        batch_size=100,
        optimizer="momentum",
        schedule="constant",
        warmup=0.0,
        clip=None,
    )
    run, plain = start(settings), start(settings)
    momentum = plain.optimizer.param_groups[0]["momentum"]
    names = LatePhase(copies=3).names(run.module)
    assert names == ["norm1.bias", "norm1.weight", "norm2.bias", "norm2.weight"]
    copies = Copies(run, names, 3, 0.0)
    for _ in range(6):  # each copy twice, the shared weights twice
        copies.step()
    module = plain.module.train()
    shared = {n: p for n, p in module.named_parameters() if n not in names}
    late = [{n: dict(module.named_parameters())[n].detach().clone() for n in names} for _ in range(3)]
    pace = [{n: torch.zeros_like(t) for n, t in own.items()} for own in late]
    shared_pace = {n: torch.zeros_like(p) for n, p in shared.items()}
    torch.manual_seed(settings.seed)
    assert plain.task.train is not None
    order = torch.randperm(600)
    for turn in range(2):
        summed = {n: torch.zeros_like(p) for n, p in shared.items()}
        for k in range(3):
            chosen = order[(3 * turn + k) * 100 :][:100]
            with torch.no_grad():
                for n, value in late[k].items():
                    dict(module.named_parameters())[n].copy_(value)
            module.zero_grad()
            cross_entropy(module(plain.task.train.inputs[chosen]), plain.task.train.labels[chosen]).backward()
            for n, p in module.named_parameters():
                assert p.grad is not None
                if n in late[k]:
                    pace[k][n] = momentum * pace[k][n] + p.grad if turn else p.grad.clone()
                    late[k][n] = late[k][n] - 0.1 * pace[k][n]
                else:
                    summed[n] += p.grad
        with torch.no_grad():
            for n, p in shared.items():
                shared_pace[n] = momentum * shared_pace[n] + summed[n] / 3 if turn else summed[n] / 3
                p.sub_(0.1 * shared_pace[n])
    copies.load_mean()
    for n, p in run.module.named_parameters():
        expected = torch.stack([own[n] for own in late]).mean(0) if n in late[0] else shared[n]
        assert torch.allclose(p, expected, atol=1e-5), n


@pytest.mark.slow
def test_late_phase_is_better_than_plain_training_and_than_its_copies() -> None:
    """The paper's claims, with three copies from 40 % of the epochs on."""
    runs = [start(seed=seed) for seed in range(2)]
    reached = trained(LatePhase(copies=3, start=0.4), runs)
    assert reached > trained(Independent(), [start(seed=seed) for seed in range(2)]) + 0.01
    run = start(HyperParameters(**{**NOISY.options(), "schedule": "constant"}))
    copies = Copies(run, LatePhase(what="both").names(run.module), 3, 0.0)
    while not run.finished:
        copies.step()
    singles = []
    for k in range(3):
        copies.load(k)
        singles.append(run.held_out())
    copies.load_mean()
    run.recalibrate()
    assert run.held_out() > sum(singles) / 3, singles


def test_noise_moves_the_copies_apart_by_its_share() -> None:
    run = start()
    before = {n: p.detach().clone() for n, p in run.module.named_parameters()}
    copies = Copies(run, ["head.weight", "norm1.weight"], 400, 0.1)
    values = torch.stack([own[0].detach() for own in copies.copies]) - before["head.weight"]
    size = float(before["head.weight"].square().mean().sqrt())
    assert float(values.square().mean().sqrt()) == pytest.approx(0.1 * size, rel=0.02)


SWEEP = Sweep.of({"learning_rate": 0.1, "epochs": 4, "batch_size": 50, "optimizer": "sgd"})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    from merging.training.folder import save

    save(tmp_path / "base.safetensors", start().module)
    return tmp_path / "base.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("swa", {}), ("papa", {"alpha": 0.9}), ("late-phase", {"copies": 3}), ("papa", {"variant": "two", "epochs": 1})],
)
def test_each_regime_makes_a_pool_that_merges(
    name: str, options: dict[str, object], base: Path, tmp_path: Path
) -> None:
    regime = build(regimes[name], options)
    jobs = None if regime.together else 1
    made = finetune(handwritten, tmp_path / "pool", SWEEP, models=3, base=base, regime=regime, jobs=jobs)
    again = finetune(handwritten, tmp_path / "pool", SWEEP, models=3, base=base, regime=regime, jobs=jobs)
    assert [t.seconds for t in again] == [0, 0, 0]
    assert [t.held_out for t in again] == [t.held_out for t in made]
    record = json.loads((tmp_path / "pool/model_02.json").read_text())
    assert record["regime"] == {"name": name, **regime.options()}
    pool = merging.ModelPool.open([tmp_path / "pool/model_*.safetensors"], tmp_path / "pool/base.safetensors")
    result = merging.merge(pool, merging.Greedy(), task=handwritten())
    assert result.report.best_single is not None
    assert result.report.best_single.held_out == max(t.held_out for t in made)
    with pytest.raises(FolderError, match="another regime"):
        finetune(handwritten, tmp_path / "pool", SWEEP, models=3, base=base, jobs=1)


def test_an_interrupted_population_goes_on_with_the_same_bits(base: Path, tmp_path: Path) -> None:
    stop = after(2 * 12 * 2 + 5)  # in the third epoch
    papa = Papa(alpha=0.9)
    with pytest.raises(Stopped):
        finetune(handwritten, tmp_path / "cut", SWEEP, models=2, base=base, regime=papa, should_stop=stop)
    assert (tmp_path / "cut/.population.pt").exists()
    resumed = finetune(handwritten, tmp_path / "cut", SWEEP, models=2, base=base, regime=papa)
    whole = finetune(handwritten, tmp_path / "whole", SWEEP, models=2, base=base, regime=papa)
    assert [t.held_out for t in resumed] == [t.held_out for t in whole]
    for name in ("model_00", "model_01"):
        one, other = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("cut", "whole"))
        assert all(torch.equal(one[key], other[key]) for key in one)
        records = [json.loads((tmp_path / folder / f"{name}.json").read_text()) for folder in ("cut", "whole")]
        assert records[0]["epochs"] == records[1]["epochs"]
        assert records[0]["spread"] == records[1]["spread"]
    assert not list((tmp_path / "cut").glob(".*")), "nothing is left over"


def test_mistakes(base: Path, tmp_path: Path) -> None:
    def made(regime: Regime, sweep: Sweep = SWEEP, models: int = 2, **more: object) -> None:
        finetune(handwritten, tmp_path / "no", sweep, models=models, base=base, regime=regime, **more)  # type: ignore[arg-type]

    with pytest.raises(OptionError, match="`models=2` or more"):
        made(Papa(), models=1)
    uneven = Sweep.of({**{k: list(v) for k, v in SWEEP.space.items() if isinstance(v, tuple)}, "epochs": [2, 3, 4]})
    with pytest.raises(OptionError, match="such as `epochs="):
        made(Papa(), uneven, models=6)
    with pytest.raises(RequirementError, match="together, in one process"):
        made(Papa(), search="optuna")
    with pytest.raises(RequirementError, match="together, in one process"):
        made(Papa(), jobs=2)
    with pytest.raises(OptionError, match="one iterate only"):
        made(SwaRegime(start=1.0), jobs=1)
    with pytest.raises(OptionError, match=r"lower regime\.start"):
        made(LatePhase(start=1.0), jobs=1)
    with pytest.raises(OptionError, match="has 24 batches for 100 copies"):
        made(LatePhase(copies=100, start=0.5), jobs=1)
    with pytest.raises(OptionError, match="does not move in its tail"):
        made(SwaRegime(rate=0.0), jobs=1)
    with pytest.raises(OptionError, match="lower low"):
        made(SwaRegime(tail="cyclic", low=0.9), jobs=1)
    with pytest.raises(RequirementError, match="at least 1"):
        made(SwaRegime(), jobs=0)
    with pytest.raises(OptionError, match=r"no norm layers to copy; choose `regime\.what=head`"):
        LatePhase().names(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(OptionError, match="no linear layer"):
        LatePhase(what="head").names(nn.BatchNorm1d(2))
    assert not (tmp_path / "no").exists(), "said before anything is written"
    finetune(handwritten, tmp_path / "half", SWEEP, models=2, base=base, regime=Papa())
    (tmp_path / "half/model_01.json").unlink()
    with pytest.raises(FolderError, match="trained together"):
        finetune(handwritten, tmp_path / "half", SWEEP, models=2, base=base, regime=Papa())
    (tmp_path / "half/.population.pt").write_bytes(b"torn")
    with pytest.raises(FolderError, match="is damaged"):
        finetune(handwritten, tmp_path / "half", SWEEP, models=2, base=base, regime=Papa())


@pytest.mark.slow
def test_runs_that_diverge_are_recorded_and_left_out(base: Path, tmp_path: Path) -> None:
    sweep = Sweep.of(
        {
            "epochs": 2,
            "batch_size": 50,
            "optimizer": "sgd",
            "clip": "none",
            "models": [{"learning_rate": 0.1}, {"learning_rate": 1e30}],
        }
    )
    for jobs in (1, 2):
        folder = tmp_path / f"pool-{jobs}"
        made = finetune(handwritten, folder, sweep, models=2, base=base, jobs=jobs)
        assert [bool(one.diverged) for one in made] == [False, True]
        assert [p.name for p in sorted(folder.glob("model_*.safetensors"))] == ["model_00.safetensors"]
        record = json.loads((folder / "model_01.json").read_text())
        assert record["held_out"] is None
        assert "the loss of epoch 1 is nan" in record["diverged"]
        for source in (folder, folder / "*.safetensors"):
            names = merging.ModelPool.open([source]).names
            assert names == ("model_00",), "the base beside it is no model of the pool"
        again = finetune(handwritten, folder, sweep, models=2, base=base, jobs=jobs)
        assert [one.seconds for one in again] == [0, 0]
    wild = Sweep.of({**sweep.plain(), "models": [], "learning_rate": 1e30})
    with pytest.raises(merging.MergingError, match=r"a member of the population diverged.*lower learning_rate"):
        finetune(handwritten, tmp_path / "papa", wild, models=2, base=base, regime=Papa())
    with pytest.raises(merging.MergingError, match=r"a training process died.*`jobs=1`"):
        finetune(only_here, tmp_path / "dies", sweep, models=2, base=base, jobs=2)
    broken = load_file(base)
    broken["head.bias"][0] = float("nan")
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(merging.MergingError, match=r"'head\.bias' holds NaN"):
        finetune(handwritten, tmp_path / "no", sweep, models=1, base=tmp_path / "broken.safetensors", jobs=1)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_papa_needs_no_sweep(merge: Merge) -> None:
    """The default sweep draws epochs; a population has them in common."""
    ran = merge(
        "finetune",
        "--task",
        "digits",
        "--models",
        "2",
        "--regime",
        "papa",
        "-o",
        "regime.variant=two",
        "--output",
        "pool",
        "--set",
        "batch_size=197",
    )
    assert ran.code == 0, ran.err
    settings = [json.loads(Path(f"pool/model_0{k}.json").read_text())["settings"] for k in range(2)]
    assert settings[0]["epochs"] == settings[1]["epochs"] == 16
    assert settings[0]["learning_rate"] != settings[1]["learning_rate"]


def test_masks_are_no_weights() -> None:
    """A CLIP's attention mask is a buffer with −∞ that no checkpoint holds: neither averaged nor measured."""
    from merging.tasks.digits import digits

    task = digits()
    runs = [
        Run(task.build(task.pool()), task, HyperParameters(epochs=1, seed=seed), numerics=tiny_numerics())
        for seed in range(2)
    ]
    masks = [b for run in runs for name, b in run.module.named_buffers() if torch.isinf(b).any()]
    before = [mask.clone() for mask in masks]
    assert masks, "or there is nothing to test"
    for name, tensor in runs[1].module.named_parameters():  # models that differ
        tensor.data.add_(0.1 if "weight" in name else 0.0)
    regime = Papa(alpha=0.5)
    apart = spread([run.module for run in runs])
    for run in runs:
        run.step()
    regime._pull(runs)
    assert 0 < spread([run.module for run in runs]) < apart
    assert all(torch.equal(*pair) for pair in zip(masks, before, strict=True))


PLUGIN = '''
from dataclasses import dataclass
from merging.plugins.options import option
from merging.training.regime import Regime, regimes

@regimes.register("half")
@dataclass(frozen=True)
class Half(Regime):
    """Trains half of the epochs."""
    share: float = option(0.5, "of the epochs", low=0.0, high=1.0)

    def train(self, runs):
        (run,) = runs
        while run.epoch < self.share * run.settings.epochs:
            for _ in range(run.steps):
                run.step()
            yield
'''


@pytest.mark.slow
def test_the_command_takes_regimes_their_options_and_ones_of_your_own(merge: Merge) -> None:
    Path("half.py").write_text(PLUGIN)
    words = ("finetune", "--task", "digits", "--models", "2", "--set", "epochs=4", "--set", "batch_size=24")
    ran = merge(*words, "--output", "own", "--plugin", "half.py", "--regime", "half", "-o", "regime.share=0.75")
    assert ran.code == 0, ran.err
    assert len(json.loads(Path("own/model_00.json").read_text())["epochs"]) == 3
    ran = merge(*words, "--output", "papa", "--regime", "papa", "-o", "regime.variant=all", "-o", "regime.epochs=2")
    assert ran.code == 0, ran.err
    assert json.loads(Path("papa/finetune.json").read_text())["regime"]["variant"] == "all"
    shown = merge(
        "run", "--task", "digits", "--models", "papa/model_*.safetensors", "--strategy", "uniform", "--no-tests"
    )
    assert shown.code == 0, shown.err
    for flags, said in (
        (("--regime", "pappa"), "did you mean 'papa'"),
        (("--regime", "swa", "-o", "regime.tale=cyclic"), "did you mean 'tail'"),
        (("--regime", "swa", "-o", "tail=cyclic"), "such as regime.tail"),
        (("--regime", "swa", "-o", "strategy.tail=cyclic"), "kind of option"),
        (("--plugin", "half.py", "--regime", "half", "--jobs", "2"), "leave --jobs out"),
    ):
        ran = merge(*words, "--output", "no", *flags)
        assert ran.code == 2, (flags, ran.err)
        assert said in ran.err
        assert not Path("no").exists()
    regimes._classes.pop("half", None)


@pytest.mark.slow
def test_what_is_copied_is_found_in_real_architectures() -> None:
    import open_clip
    import torchvision

    from merging.training.parts import head_of, norms_of

    clip = open_clip.create_model("ViT-B-32", pretrained=None).visual
    names = norms_of(clip)
    assert len(names) == 2 * (2 * 12 + 2), "two norms a block, one before and one after"
    assert all("ln" in name for name in names)
    resnet = torchvision.models.resnet18()
    assert len(norms_of(resnet)) == 2 * 20
    assert head_of(resnet) == {"fc.weight", "fc.bias"}
    assert head_of(copy.deepcopy(resnet)) == head_of(resnet)


@pytest.mark.parametrize(
    ("body", "words"),
    [("yield", "yielded without a step"), ("runs[0].step()", "ended before one epoch was done")],
)
def test_a_regime_that_does_no_epoch_is_refused(body: str, words: str) -> None:
    class Still(Regime):
        summary = "none"

        def train(self, runs: Any) -> Iterator[None]:
            while body == "yield":
                yield
            runs[0].step()
            yield

    run = SimpleNamespace(done=0, finished=False, epoch=0.0)
    run.step = lambda: setattr(run, "done", 1)
    with pytest.raises(MergingError, match=f"regime 'Still': train {words}"):
        list(epochs_of(Still(), [run]))  # type: ignore[list-item]  # all of a run that is looked at

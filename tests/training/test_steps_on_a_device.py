"""Steps on a GPU: none waits for it, draws are the seed's, and a run that goes on is the uninterrupted one."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from merging.data.images import Normalise
from merging.forward.numerics import Numerics
from merging.plugins.task import Split, Task
from merging.testing.fixtures import tiny_numerics
from merging.training.ahead import Workers
from merging.training.hyperparameters import HyperParameters
from merging.training.samples import DeviceSamples, Samples
from merging.training.trainer import Run
from tests.waiting import no_synchronisation

POLICY = "rand-m5-mstd0.5"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "flip": {"augmentation": "flip", "clip": None},
    "crop, mixed": {"augmentation": "crop", "mixup": 0.2, "cutmix": 0.5, "label_smoothing": 0.1},
    "moved, erased": {"augmentation": "wide-affine", "erasing": 0.3, "optimizer": "sgd"},
}


class Pixels(nn.Module):
    """Means of quarters of a picture through two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        quarters = x.unflatten(3, (2, -1)).unflatten(2, (2, -1)).mean((3, 5))
        logits: Tensor = self.two(self.one(quarters.flatten(1)).relu())
        return logits


def pictures() -> Task:
    """Noisy pictures of three colours, stored as bytes."""

    def part(count: int, seed: int) -> Split:
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (count,), generator=draw)
        pixels = torch.randint(0, 200, (count, 8, 8, 3), generator=draw, dtype=torch.uint8)
        pixels[torch.arange(count), :, :, labels] += 55
        return Split.of(pixels, labels)

    prepare = Normalise((0.5,) * 3, (0.5,) * 3)
    return Task(name="pictures", build=lambda pool: Pixels(), held_out=part(60, 1), train=part(100, 3), prepare=prepare)


def started(device: str, *, samples: Samples | None = None, **settings: Any) -> Run:
    """A run from the one base that all of them share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = Pixels()
    task = pictures()
    numerics = Numerics.choose(device, module, task.held_out.inputs[0], "fp32") if device != "cpu" else tiny_numerics()
    given = HyperParameters(**{"epochs": 4, "batch_size": 16, "learning_rate": 0.01, **settings})
    return Run(module, task, given, numerics=numerics, samples=samples)


def finished(run: Run) -> list[Tensor]:
    """Trains to the end."""
    while not run.finished:
        run.step()
    return [tensor.detach().cpu().clone() for tensor in run.module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for a GPU raises; on the pretended one, whatever fetches a number from it does."""
    if torch.cuda.is_available() and torch.cuda.get_device_name() != "none":
        with no_synchronisation():
            yield
        return
    fetched = list[str]()
    with pytest.MonkeyPatch.context() as patched:
        for name in ("item", "cpu", "tolist", "__float__", "__bool__", "__int__", "nonzero"):
            real = getattr(Tensor, name)

            def wrong(self: Tensor, *args: Any, name: str = name, own: Any = real) -> Any:
                if self.is_cuda:
                    fetched.append(name)
                return own(self, *args)

            patched.setattr(Tensor, name, wrong)
        yield
    assert not fetched


@pytest.mark.parametrize("kind", [*KINDS, "streamed"])
def test_a_step_waits_for_nothing(kind: str, device: str) -> None:
    run = started(device, **KINDS.get(kind, {}))
    if kind == "streamed":
        run._samples = DeviceSamples(run.task.training, torch.device(device), room=100)
    run.step()  # what is kept from the first one on
    with no_waiting():
        while (run.done + 1) % run.steps:
            run.step()
    run.step()  # the last of an epoch, which fetches the loss
    assert 0 < run.loss < 3
    with no_waiting():
        run.step()  # the first of another


@pytest.fixture(scope="module")
def shared() -> Iterator[Workers]:
    """One process that augments, for all tests here."""
    made = Workers(1)
    yield made
    made.close()


@pytest.mark.slow
def test_a_step_with_a_policy_waits_for_nothing(shared: Workers, device: str) -> None:
    run = started(device, augmentation=POLICY)
    run._samples._workers = shared  # type: ignore[attr-defined]
    run.step()
    with no_waiting():
        while (run.done + 1) % run.steps:
            run.step()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(kind: str, device: str) -> None:
    first, second, other = (started(device, seed=seed, **KINDS[kind]) for seed in (1, 1, 2))
    trained = finished(first)
    assert same(trained, finished(second))
    assert first.loss == second.loss
    assert not same(trained, finished(other))


@pytest.mark.parametrize("kind", [*KINDS, "policy"])
@pytest.mark.slow
def test_a_run_goes_on_with_the_same_bits(kind: str, shared: Workers, device: str) -> None:
    """From the middle of an epoch, and from its end."""
    settings = KINDS.get(kind, {"augmentation": POLICY})
    samples = DeviceSamples(pictures().training, torch.device(device))
    samples._workers = shared
    cut, whole = started(device, samples=samples, **settings), finished(started(device, samples=samples, **settings))
    for more in (9, 3):
        for _ in range(more):
            cut.step()
        resumed, file = started(device, samples=samples, **settings), io.BytesIO()
        torch.save(cut.state(), file)
        file.seek(0)
        kept = torch.load(file, map_location="cpu", weights_only=True)
        assert isinstance(kept["losses"], float)
        resumed.restore(kept)
        assert same(whole, finished(resumed))


def test_streamed_samples_are_those_that_lie_there(device: str) -> None:
    lying, streamed = started(device, augmentation="crop"), started(device, augmentation="crop")
    streamed._samples = DeviceSamples(streamed.task.training, torch.device(device), room=100)
    assert not streamed._samples._feed.resident
    assert lying._samples._feed.resident  # type: ignore[attr-defined]
    assert same(finished(lying), finished(streamed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_trains_as_the_cpu_does(kind: str, device: str) -> None:
    """Where nothing is drawn but the order: the same batches. Else: a like accuracy."""
    there, here = started(device, epochs=12, **KINDS[kind]), started("cpu", epochs=12, **KINDS[kind])
    losses = []
    for run in (there, here):
        finished(run)
        losses.append(run.loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.05 if kind == "plain" else 0.3)
    assert there.held_out() == pytest.approx(here.held_out(), abs=0.1)
    assert here.held_out() > 0.8


def test_each_sample_comes_once_an_epoch(device: str) -> None:
    split = Split.of(torch.arange(50, dtype=torch.uint8).view(50, 1, 1), torch.arange(50))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for room in (None, 8):
        found = list(DeviceSamples(split, torch.device(device), room).batches(order, 8, HyperParameters(), 0))
        assert torch.equal(torch.cat([labels for _, labels in found]).cpu(), order[:48])
        assert torch.equal(torch.cat([stored for stored, _ in found]).cpu().view(-1), order[:48].to(torch.uint8))


def test_optimizers_are_fused_there_and_only_there(device: str) -> None:
    for name in ("adamw", "sgd"):
        assert started(device, optimizer=name).optimizer.param_groups[0]["fused"] is True
        assert not started("cpu", optimizer=name).optimizer.param_groups[0]["fused"]
    finished(started(device, optimizer="rmsprop", epochs=1))  # which torch has not so


def test_a_batch_lies_there_before_the_model_asks_for_it(device: str) -> None:
    run = started(device, augmentation="affine")
    with run._random.used():
        inputs, labels, _ = run._batch()
    assert inputs.is_cuda
    assert labels.is_cuda

"""The second device refuses what a GPU refuses, keeps places through views and copies, and computes as the CPU does."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from merging.testing.second_device import second_device

THERE = torch.device("cuda", 0)


def there(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape)), device="cuda").view(shape)


REFUSED: dict[str, Callable[[], Any]] = {
    "a sum": lambda: there(3) + torch.ones(3),
    "a sum in place": lambda: torch.ones(3).add_(there(3)),
    "a number there, a vector here": lambda: torch.ones(3) * there(1)[0],
    "a module here": lambda: nn.Linear(3, 2)(there(2, 3)),
    "inputs here": lambda: nn.Linear(3, 2, device="cuda")(torch.ones(2, 3)),
    "an index there": lambda: torch.ones(4)[torch.tensor([1], device="cuda")],
    "token ids here": lambda: F.embedding(torch.tensor([1]), there(4, 3)),
    "gathering by what is here": lambda: there(2, 2).gather(1, torch.zeros(2, 1, dtype=torch.int64)),
    "labels here": lambda: F.cross_entropy(there(2, 2), torch.zeros(2, dtype=torch.int64)),
    "a comparison": lambda: torch.equal(there(3), torch.ones(3)),
    "joining": lambda: torch.cat([there(3), torch.ones(3)]),
    "out=": lambda: torch.lerp(there(3), there(3), 0.5, out=torch.empty(3)),
    "numpy": lambda: there(3).numpy(),
    "np.asarray": lambda: np.asarray(there(3)),
    "a generator": lambda: there(2, 2).softmax(1).multinomial(1, generator=torch.Generator()),
    "drawn there by a generator here": lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
    "a mask": lambda: there(3).masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
    "batch norm": lambda: nn.BatchNorm1d(3)(there(2, 3)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses_is_refused(what: str) -> None:
    with second_device(), pytest.raises((RuntimeError, TypeError), match=r"device|cpu"):
        REFUSED[what]()


def test_what_a_gpu_takes_is_taken() -> None:
    with second_device():
        x = there(4, 3)
        taken = {
            "an index here": x[torch.tensor([0, 1])],
            "a mask here as index": x[torch.tensor([True, False, True, False])],
            "a number here": x * torch.tensor(2.0),
            "a number to fill with": x.masked_fill(x > 2, torch.tensor(0.0)),
            "a copy": torch.empty(4, 3, device="cuda").copy_(torch.ones(4, 3)),
            "alike": torch.zeros_like(x),
            "new": x.new_tensor([1.0]),
            "one-hot": F.one_hot(x[0].long(), 3),
            "a view": x.view(12)[3:].permute(0),
            "deeper": copy.deepcopy(x),
            "by a context": torch.ones(2).to(x),
        }
        assert {name: t.device for name, t in taken.items()} == dict.fromkeys(taken, THERE)
        here = torch.zeros_like(x, device="cpu")
        for back in (x.cpu(), x.to("cpu"), here, here.copy_(x), torch.ones(2)):
            assert back.device.type == "cpu"
            back.numpy()
        with torch.device("cuda"):
            assert torch.ones(2).is_cuda
            assert nn.Linear(2, 2).weight.is_cuda
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "none"
    assert torch.ones(1).device.type == "cpu"


def test_gradients_and_modules_stay_where_they_are() -> None:
    with second_device():
        module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).to("cuda")
        optimizer = torch.optim.AdamW(module.parameters())
        with torch.autocast("cuda", torch.bfloat16):
            logits = module(there(4, 3))
        assert logits.dtype == torch.bfloat16
        F.cross_entropy(logits.float(), torch.tensor([0, 1, 0, 1], device="cuda")).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        twin = copy.deepcopy(module)
        for part in itertools.chain(module.parameters(), module.buffers(), twin.parameters(), twin.buffers()):
            assert part.is_cuda
        assert all(p.grad is not None and p.grad.is_cuda for p in module.parameters())
        flat = torch.zeros(8, device="cuda")
        twin[0].bias.data = flat.view(8)
        assert twin[0].bias.is_cuda
        leaf = torch.ones(3, requires_grad=True)
        (leaf.to("cuda") * 2).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.device.type == "cpu", "a gradient comes back to where its tensor is"
        weights = {name: p.detach() for name, p in module.eval().named_parameters()}
        slopes = vmap(grad(lambda w, x: functional_call(module, w, (x[None],)).sum()), in_dims=(None, 0))
        assert all(slope.is_cuda for slope in slopes(weights, there(4, 3)).values())


def test_a_late_copy_arrives_when_it_is_waited_for() -> None:
    with second_device():
        pinned = torch.empty(3, pin_memory=True).fill_(7.0)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            late = pinned.to("cuda", non_blocking=True)
            event = stream.record_event()
        assert not (late.cpu() == 7).any(), "nobody has waited"
        event.synchronize()
        assert (late.cpu() == 7).all()
        with torch.cuda.stream(stream):
            late = pinned.to("cuda", non_blocking=True)
            event = stream.record_event()
        torch.cuda.current_stream().wait_stream(stream)
        assert (late.cpu() == 7).all()
        with pytest.raises(RuntimeError, match="is written over while a copy of it is on its way"):
            pinned.fill_(8.0)  # the other stream has waited, this program has not
        event.synchronize()
        pinned.fill_(8.0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(8, 8),
    "norm": lambda: nn.LayerNorm(8),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
    "gru": lambda: Only(nn.GRU(8, 8, batch_first=True)),
    "gelu": nn.GELU,
    "convolution": lambda: Turned(nn.Conv1d(8, 8, 3, padding=1)),
    "batch norm": lambda: Turned(nn.BatchNorm1d(8)),
}


class Only(nn.Module):
    """The first output of a layer that gives several."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.layer(x)[0]
        return first


class Turned(nn.Module):
    """A layer that has its channels in the middle."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = self.layer(x.mT)
        return turned.mT


@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4),
    behind=st.sampled_from(["nothing", "module", "inputs", "a buffer"]),
    train=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_module_computes_the_same_or_is_refused(names: list[str], behind: str, train: bool, seed: int) -> None:
    """Whole on the device: the CPU's bits and gradients. Any part left behind: refused, never a number."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Embedding(20, 8), *[LAYERS[name]() for name in names]).train(train)
    ids = torch.randint(20, (3, 5))
    expected = copy.deepcopy(module)(ids)
    expected.square().sum().backward()
    with second_device():
        other = copy.deepcopy(module)
        if behind != "module":
            other.to("cuda")
        if behind == "a buffer":
            other[0].weight.data = other[0].weight.data.cpu()
        x = ids if behind == "inputs" else ids.to("cuda")
        if behind != "nothing":
            with pytest.raises(RuntimeError, match="device"):
                other(x)
            return
        found = other(x)
        found.square().sum().backward()
        assert found.is_cuda
        assert torch.equal(found.detach().cpu(), expected.detach())
        assert all(p.grad is not None and p.grad.is_cuda for p in other.parameters())

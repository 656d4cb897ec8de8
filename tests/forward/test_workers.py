"""How workers are asked for: what may be said, what is said of the rest, and what follows for device and threads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import merging
from merging.errors import OptionError
from merging.forward.numerics import Numerics
from merging.forward.settings import Passes
from merging.forward.workers import MOST, Workers
from merging.running.plan import plan
from merging.testing import tiny_pool, tiny_task

SPELLINGS = [
    (2, "local", 2, None),
    ("2", "local", 2, None),
    ("gpu", "gpu", None, None),
    ("gpu:4", "gpu", 4, None),
    ("ray", "ray", None, None),
    ("ray:auto", "ray", None, "auto"),
    ("ray:10.0.0.1:6379", "ray", None, "10.0.0.1:6379"),
    ("3@ray", "ray", 3, None),
    ("8@ray:head-0.cluster:6379", "ray", 8, "head-0.cluster:6379"),
    ("8@ray:[::1]:6379", "ray", 8, "[::1]:6379"),
]


@pytest.mark.parametrize(("said", "kind", "count", "address"), SPELLINGS)
def test_each_spelling_is_read_and_written_back(said: int | str, kind: str, count: int, address: str) -> None:
    found = Workers.of(said)
    assert (found.kind, found.count, found.address) == (kind, count, address)
    assert str(found.said) == str(said)
    assert Passes(workers=said).crew == found


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (0, "is 0, but their number must be between 1 and 4096"),
        (-3, "is -3, but"),
        ("gpu:0", "is gpu:0, but"),
        ("0@ray", "is 0@ray, but"),
        ("9" * 300, "but their number must be"),
        ("gppu", "did you mean 'gpu'?"),
        ("GPU", "did you mean 'gpu'?"),
        ("4@raay:auto", "did you mean '4@ray:auto'?"),
        ("nonee", "did you mean 'none'?"),
        ("ray:auot", "did you mean 'ray:auto'?"),
        ("ray:10.0.0.1", "such as ray:10.0.0.1:6379"),
        ("ray:", "an address is HOST:PORT"),
        ("ray:h:70000", "an address is HOST:PORT"),
        ("ray:4", "4 workers are 4@ray"),
        ("ray://h:10001", "address of Ray's client"),
        ("10.0.0.1:6379", "a cluster of Ray there is 'ray:10.0.0.1:6379'"),
        ("4@gpu", "4 GPUs are gpu:4"),
        ("2.5", "it is a number, gpu"),
        ("", "it is a number, gpu"),
        ("ray:" + "x" * 500, "an address is HOST:PORT"),
    ],
)
def test_what_is_no_number_of_workers_is_said_in_a_line(said: int | str, words: str) -> None:
    with pytest.raises(OptionError, match=re.escape(words)) as caught:
        Passes(workers=said)
    assert str(caught.value).startswith("`workers` is ")
    assert len(str(caught.value)) < 300


@given(st.text(max_size=40) | st.integers())
def test_whatever_is_said_is_read_or_refused(said: int | str) -> None:
    try:
        found = Workers.of(said)
    except OptionError:
        with pytest.raises(OptionError, match=r"^`workers` is .{1,280}$"):
            Workers.of(said)
    else:
        assert Workers.of(found.said) == found
        assert found.count is None or 1 <= found.count <= MOST


def test_gpus_are_a_device_that_is_there(tmp_path: Path) -> None:
    assert [Workers.of("gpu").on(device) for device in ("auto", "cuda")] == ["cuda", "cuda"]
    assert Workers.of(2).on("mps") == "mps"
    assert [Workers.of("ray").on(device) for device in ("auto", "cuda", "cpu")] == ["auto", "cuda", "cpu"]
    with pytest.raises(OptionError, match="`workers` is ray, where GPUs are given out, but `device` is cuda:1; say"):
        Workers.of("ray").on("cuda:1")
    for device in ("cpu", "mps", "cuda:1"):
        with pytest.raises(OptionError, match=f"`workers` is gpu, but `device` is {device}"):
            Passes(workers="gpu", device=device)
    Workers.of("gpu").check_gpus(1)
    with pytest.raises(OptionError, match=r"`workers` is gpu:4, and this machine has 2 GPUs; `workers=gpu` takes all"):
        Workers.of("gpu:4").check_gpus(2)
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match=r"has none that torch can use; `workers=2` is two processes on the CPU"):
            plan(tiny_pool(tmp_path), merging.Greedy(), task=tiny_task(), workers="gpu")


def test_each_worker_on_a_cpu_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.forward.numerics.cores", lambda: 8)
    large, sample = nn.Linear(1200, 1000), torch.zeros(3)
    assert Numerics.choose("cpu", large, sample).threads == 8
    found = Numerics.choose("cpu", large, sample, beside=True)
    assert found == Numerics.choose("cpu", large, sample, threads=1)
    assert Numerics.choose("cpu", large, sample, beside=True, threads=2).threads == 2


def test_more_workers_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.forward.workers.cores_of_all", lambda: 4)
    assert Workers.of(4).remark(1, "cpu") is None
    assert Workers.of(8).remark(1, "cuda") is None
    assert Workers.of("8@ray:auto").remark(1, "cpu") is None
    assert Workers.of(8).remark(1, "cpu") == "8 workers share 4 cores: the same bits, not sooner than with 4"
    told = Workers.of(3).remark(2, "cpu")
    assert told == "3 workers of 2 threads share 4 cores: the same bits, not sooner than with 2"

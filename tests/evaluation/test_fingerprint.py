"""Two machines that may give other bits are told apart, and in what."""

from __future__ import annotations

import platform
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from merging.evaluation.fingerprint import Fingerprint, differs, fingerprint
from merging.partitioners.layer import Layer
from merging.plugins.task import Task
from merging.running.plan import plan
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.testing import tiny_task
from merging.values.recipe import Recipe


def taken(pool: ModelPool, task: Task | None = None, *, batch: int = 16, **settings: Any) -> Fingerprint:
    """The fingerprint of a run's model, made anew each time, as each process makes its own."""
    made = plan(pool, Best(), partitioner=Layer(), task=task or tiny_task(), tests=False, **settings)
    assert made.live is not None
    assert made.task is not None
    assert made.numerics is not None
    return fingerprint(made.live, made.task, replace(made.numerics, batch=batch))


def test_one_machine_has_one_fingerprint(pool: ModelPool) -> None:
    one, other = taken(pool), taken(pool)
    assert one == other
    assert differs(one, other) is None
    assert Fingerprint(**asdict(one)) == one
    assert (one.host, one.threads) == (platform.node(), 1)
    assert one.torch == torch.__version__
    assert one.device.startswith("cpu (")
    assert one.cuda == ""
    assert one.capability == torch.backends.cpu.get_cpu_capability()
    assert taken(pool, threads=2).threads == 2
    assert torch.get_num_threads() == 1
    assert max(map(len, map(str, asdict(one).values()))) < 100


def test_the_answer_is_that_of_the_first_model_on_the_first_batch(pool: ModelPool) -> None:
    task, one = tiny_task(), taken(pool)
    late = task.held_out.inputs.clone()
    late[16:] += 1
    early = task.held_out.inputs.clone()
    early[15] += 1
    same, other = (replace(task, held_out=replace(task.held_out, inputs=inputs)) for inputs in (late, early))
    assert taken(pool, same) == one
    assert taken(pool, other).answer != one.answer
    assert taken(pool, batch=200).answer == taken(pool, batch=120).answer != one.answer
    again = ModelPool([pool.checkpoints[k] for k in (0, 2, 3)], pool.base)
    assert taken(again) == one
    assert taken(ModelPool(pool.checkpoints[1:], pool.base)).answer != one.answer
    assert taken(pool, precision="bf16").answer != one.answer


def test_labels_have_no_part_in_it(pool: ModelPool) -> None:
    """They may be numbers, or none of the model's outputs, which whoever scores says."""
    task = tiny_task()
    numbers = replace(task.held_out, labels=torch.full((120,), 7))
    made = plan(pool, Best(), partitioner=Layer(), task=task, tests=False)
    assert made.live is not None
    assert made.numerics is not None
    other = replace(task, held_out=numbers)
    assert fingerprint(made.live, other, made.numerics) == fingerprint(made.live, task, made.numerics)


def test_it_leaves_the_model_usable(pool: ModelPool) -> None:
    made = plan(pool, Best(), partitioner=Layer(), task=tiny_task(), tests=False)
    assert made.live is not None
    assert made.numerics is not None
    live, inputs, scores = made.live, tiny_task().held_out.inputs, []
    first, second = (Recipe.single(row, live.partition) for row in pool.ingredients[:2])
    for between in (False, True):
        live.set_ends(first, second)
        if between:
            fingerprint(live, tiny_task(), made.numerics)
            live.set_ends(first, second)
        live.trial(np.full(len(live.partition), 0.25), "lerp")
        with torch.inference_mode():
            scores.append(live.module(inputs))
    assert torch.equal(*scores)


def test_on_a_gpu(pool: ModelPool, device: str) -> None:
    one = taken(pool, device=device)
    assert one == taken(pool, device=device)
    assert one.device == torch.cuda.get_device_name(device)
    assert "cuDNN" in one.cuda
    assert "driver" in one.cuda


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("torch", "2.8.0", "torch's version is {here} on one and 2.8.0 on two"),
        ("merging", "0.1", "the version of merging is {here} on one and 0.1 on two"),
        ("device", "NVIDIA A100", "the device is {here} on one and NVIDIA A100 on two"),
        ("capability", "SVE", "the CPU's instruction set is {here} on one and SVE on two"),
        ("cuda", "CUDA 13.0", "what drives the GPU is {here} on one and CUDA 13.0 on two"),
        ("threads", 2, "the number of threads is {here} on one and 2 on two"),
        ("answer", "0f", "one and two give other logits for the same batch, though they are alike otherwise"),
    ],
)
def test_what_differs_is_said_in_words(pool: ModelPool, field: str, value: object, words: str) -> None:
    one = replace(taken(pool), host="one")
    other = replace(one, host="two")
    assert differs(one, other) is None
    changed = replace(other, **{field: value})
    assert changed != other
    said = differs(one, changed)
    assert said == words.format(here=getattr(one, field) or "none")
    assert len(said) < 250

"""``--tune``: batch and threads by measurement instead of by rule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from merging.forward.numerics import Numerics
from merging.machine import cores
from merging.plugins.progress import Progress

_SAMPLES = 512
_BATCHES = {"cpu": (16, 32, 64, 128, 256, 512), "cuda": (128, 256, 512, 1024, 2048)}


def candidates(rule: Numerics, samples: int) -> Iterator[Numerics]:
    """What is measured: the rule itself first, then other batches, on a CPU with one thread and with all cores."""
    yield rule
    on_cpu = rule.device == "cpu"
    for threads in sorted({1, cores()}) if on_cpu else [rule.threads]:
        for batch in _BATCHES["cpu" if on_cpu else "cuda"]:
            if batch <= max(samples, 16) and (batch, threads) != (rule.batch, rule.threads):
                yield replace(rule, batch=batch, threads=threads)


def tuned(
    rule: Numerics, module: nn.Module, prepare: Callable[[Tensor], Tensor], inputs: Tensor, progress: Progress
) -> Numerics:
    """The fastest batch and threads for a model, by the median of three passes over some of its own data.

    The answer depends on what else the machine does. It is written to the report and the journal, and a resumed run
    takes it from there.

    Args:
        rule: what would be used without measuring; kept unless another choice is at least 5 % faster.
        module: on the device, in the precision that it will run in.
        prepare: inputs as they are stored → what the module takes.
        inputs: held-out samples as they are stored; 512 of them are used.
        progress: told what happens.
    """
    inputs = inputs[:_SAMPLES].to(rule.device)
    found: dict[Numerics, float] = {}
    wanted = list(candidates(rule, len(inputs)))
    progress.stage("tuning batch and threads", len(wanted))
    for numerics in wanted:
        with numerics.applied(), torch.inference_mode():
            times = [_seconds(module, prepare, inputs, numerics) for _ in range(4)]
        found[numerics] = statistics.median(times[1:])
        progress.advance()
    fastest = min(found, key=lambda numerics: found[numerics])
    chosen = fastest if found[fastest] < 0.95 * found[rule] else rule
    progress.say(
        f"batch {chosen.batch}, {chosen.threads} threads: {found[rule] / found[chosen]:.2f} times the rule's speed"
    )
    return chosen


def _seconds(module: nn.Module, prepare: Callable[[Tensor], Tensor], inputs: Tensor, numerics: Numerics) -> float:
    began = time.perf_counter()
    for part in inputs.split(numerics.batch):
        module(prepare(part))
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter() - began

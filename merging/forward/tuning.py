"""The setting ``tune``: batch and threads by measurement instead of by rule."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import OptionError
from merging.forward.device import on_device
from merging.forward.numerics import Numerics
from merging.machine import available_memory, cores
from merging.plugins.progress import Progress
from merging.plugins.sequences import Sequences, in_batches

_SAMPLES = {"cpu": 512, "cuda": 4096}
"""How many are timed at most: the largest batch twice, on a GPU. A larger batch than that is timed once."""
_LARGEST = 2048
_FLOATS = 32
"""Floats alive at once for each of an input's, at the most."""
_BATCHES = {"cpu": (16, 32, 64, 128, 256, 512), "cuda": (128, 256, 512, 1024, 2048)}


def candidates(rule: Numerics, samples: int, threads: int | None = None) -> Iterator[Numerics]:
    """Lists what is measured: the rule first, then other batches, on a CPU with one thread and with all cores.

    Args:
        rule: what would be used without measuring.
        samples: how many there are to measure with.
        threads: the only number of threads, where the user has named one.
    """
    yield rule
    on_cpu = _kind(rule) == "cpu" and threads is None
    of_tokens = tuple(int(rule.batch * share) for share in (0.25, 0.5, 1, 2, 4))
    for threads in sorted({1, cores()}) if on_cpu else [rule.threads]:
        for batch in of_tokens if rule.tokens else _BATCHES[_kind(rule)]:
            fits = rule.tokens or batch <= max(samples, 16)
            if fits and (batch, threads) != (rule.batch, rule.threads):
                yield replace(rule, batch=batch, threads=threads)


def tuned(
    rule: Numerics,
    module: nn.Module,
    prepare: Callable[[Any], Tensor],
    inputs: Tensor | Sequences,
    progress: Progress,
    threads: int | None = None,
) -> Numerics:
    """The fastest batch and threads for a model, by the median of three passes over some of its own data.

    The answer depends on what else the machine does. It is written to the report and the journal, and a resumed run
    takes it from there.

    Args:
        rule: what would be used without measuring; kept unless another choice is at least 5 % faster.
        module: the model, on the device, in the precision that it will run in.
        prepare: inputs as they are stored → what the module takes.
        inputs: held-out samples as they are stored; 512 of them are used, on a GPU 4096, so that larger batches than
            the rule's are full. On a CPU larger batches than 512 follow, up to 2048, while they are faster and memory
            has room.
        progress: told what happens.
        threads: the only number of threads, where the user has named one.

    Raises:
        OptionError: the device has no room for any of the batches.
    """
    most = _SAMPLES[_kind(rule)]
    inputs = inputs[: max(most, _LARGEST)]
    if not isinstance(inputs, Sequences):
        inputs = on_device(inputs, rule.device)
    found: dict[Numerics, float] = {}
    wanted = list(candidates(rule, min(len(inputs), most), threads))

    def measure(numerics: Numerics) -> None:
        part = inputs[: most if rule.tokens else max(most, numerics.batch)]
        no_room = contextlib.suppress(torch.OutOfMemoryError)  # such a batch is not the fastest
        with no_room, numerics.applied(), torch.inference_mode():
            took = median_seconds(partial(_pass, module, prepare, part, numerics.batch))
            found[numerics] = took / len(part)
        progress.advance()

    progress.stage("tuning batch and threads", len(wanted))
    for numerics in wanted:
        measure(numerics)
    if not found:
        least = min(numerics.batch for numerics in wanted)
        raise OptionError(f"the model has no room on {rule.device}, not even for {least} samples; try `device=cpu`")
    fastest = min(found, key=lambda numerics: found[numerics])
    while _may_grow(fastest, inputs, most):
        larger = replace(fastest, batch=2 * fastest.batch)
        measure(larger)
        if found.get(larger, found[fastest]) >= found[fastest]:
            break
        fastest = larger
    chosen = rule if rule in found and found[fastest] >= 0.95 * found[rule] else fastest
    gain = f"{found[rule] / found[chosen]:.2f} times the rule's speed" if rule in found else "the rule's has no room"
    progress.say(f"batch {chosen.batch}, {chosen.threads} threads: {gain}")
    return chosen


def _may_grow(fastest: Numerics, inputs: Tensor | Sequences, most: int) -> bool:
    """Whether a CPU's fastest batch is the largest that was tried, with samples and memory for twice as many."""
    larger = 2 * fastest.batch
    if fastest.tokens or fastest.device != "cpu" or fastest.batch < most or larger > min(len(inputs), _LARGEST):
        return False
    return larger * inputs[0].numel() * 4 * _FLOATS <= available_memory() // 2


def _kind(rule: Numerics) -> str:
    return "cpu" if rule.device == "cpu" else "cuda"


def _pass(module: nn.Module, prepare: Callable[[Any], Tensor], inputs: Tensor | Sequences, batch: int) -> None:
    for part in in_batches(inputs, batch):
        outputs = module(prepare(part))
    if outputs.is_cuda:
        torch.cuda.synchronize(outputs.device)


def median_seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """Wall time of some work, the median of several rounds after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)

"""Whether two machines give the same bits: what they are, and what they answer to one batch of the data."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.passes import Passes
from merging.plugins.task import HELD_OUT, Task
from merging.storage.raw import bytes_of
from merging.values.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A machine as forward passes see it. Two that differ in the host alone are taken to give the same bits.

    Attributes:
        host: its name, for messages.
        merging: version of this package.
        torch: version of torch, with the build it is of.
        device: the GPU's name, or the processor's where passes are made on the CPU.
        capability: instructions that torch's own CPU kernels are chosen by, such as ``AVX512``.
        cuda: versions of CUDA (or ROCm), of cuDNN and of the driver; empty where passes are made on the CPU.
        threads: threads of the CPU.
        answer: digest of the first model's logits on the first batch of the held-out data.
    """

    host: str
    merging: str
    torch: str
    device: str
    capability: str
    cuda: str
    threads: int
    answer: str

    def to_json(self) -> dict[str, Any]:
        """Gives all fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fingerprint:
        """Makes the value from what :meth:`to_json` gave."""
        return cls(**data)


def fingerprint(live: LiveModel, task: Task, numerics: Numerics) -> Fingerprint:
    """Finds what this machine is and what it answers; one batch is passed forward, in the precision of the search.

    Compiled or not, the answer is that of the model as it is: compiling takes longer than all else here. Whoever scores
    afterwards loads a model first.

    Args:
        live: the model, on its device; the pool's first is loaded into it.
        task: the data.
        numerics: how passes are made.
    """
    on_gpu = numerics.device.startswith("cuda")
    with numerics.applied():
        return Fingerprint(
            host=platform.node(),
            merging=importlib.metadata.version("merging"),
            torch=str(torch.__version__),
            device=torch.cuda.get_device_name(numerics.device) if on_gpu else f"{numerics.device} ({_processor()})",
            capability=torch.backends.cpu.get_cpu_capability(),
            cuda=_cuda() if on_gpu else "",
            threads=torch.get_num_threads(),
            answer=_answer(live, task, numerics),
        )


def _answer(live: LiveModel, task: Task, numerics: Numerics) -> str:
    passes = Passes(live, task, numerics, 0, lambda: False, counts=True)  # what labels are is no matter here
    live.load(Recipe.single(live.pool.ingredients[0], live.partition))
    span = (0, min(numerics.batch, len(task.held_out)))
    with passes.eagerly():
        logits, _ = next(passes.plain(HELD_OUT, span=span))
    return blake3(bytes_of(logits.cpu()).data).hexdigest()[:32]


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine()


def _cuda() -> str:
    """Versions of what computes on a GPU, and of its driver."""
    platform_of = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    try:
        said = Path("/proc/driver/nvidia/version").read_text("utf-8", "replace")
    except OSError:  # AMD's, or not Linux
        said = ""
    driver = re.search(r"\b\d{3,}(\.\d+)+", said)
    return f"{platform_of}, cuDNN {torch.backends.cudnn.version()}, driver {driver[0] if driver else 'unknown'}"


_WORDS = {
    "merging": "the version of merging",
    "torch": "torch's version",
    "device": "the device",
    "capability": "the CPU's instruction set",
    "cuda": "what drives the GPU",
    "threads": "the number of threads",
}


def differs(one: Fingerprint, other: Fingerprint) -> str | None:
    """Says in words why two machines may give other bits; None where nothing but the host differs.

    >>> facts = {"merging": "1.0", "torch": "2.9", "device": "cpu", "capability": "AVX2", "cuda": "", "answer": "90"}
    >>> differs(Fingerprint(host="a", threads=1, **facts), Fingerprint(host="b", threads=2, **facts))
    'the number of threads is 1 on a and 2 on b'
    """
    for name, words in _WORDS.items():
        first, second = getattr(one, name), getattr(other, name)
        if first != second:
            return f"{words} is {first or 'none'} on {one.host} and {second or 'none'} on {other.host}"
    if one.answer != other.answer:
        return f"{one.host} and {other.host} give other logits for the same batch, though they are alike otherwise"
    return None

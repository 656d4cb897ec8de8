"""The fixed rule by which device, batch, threads and precision follow from machine and model.

Batch and threads change the last bits of a forward pass, so they are part of every cache key, are written to the
report, and stay the same when a run is resumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import OptionError, unknown
from merging.forward.compiling import compiler_there, repeated_blocks
from merging.forward.patches import is_patched
from merging.machine import MOST_THREADS, PRECISIONS, cores
from merging.plugins.sequences import Sequences
from merging.storage.dtypes import torch_dtype
from merging.values.wording import plural

DEVICES = ("auto", "cpu", "cuda", "mps")
SMALL_MODEL = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""
WORTH_COMPILING = 3_000_000
"""Samples that a search passes forward from which on compiling pays: ViT-B/32 on an H100 takes 8 µs less a sample, and
14 s once, on 16 cores (``python -m benchmarks.device``); twice as long where there are few."""
_BATCH_ON_GPU = 512
_TOKENS_ON_GPU = 16384
_TOKENS_ON_CPU = 2048
_ACTIVATIONS = 32
"""Floats alive at once for each of an input's, at the most: what a batch may need of a GPU's memory."""


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """The way in which forward passes are computed: part of every evaluation's key, the same on resume.

    Attributes:
        device: name of torch's device.
        batch: samples a batch.
        threads: threads of the CPU.
        dtype: dtype of the search's passes: ``float32`` or ``bfloat16``.
        layout: memory layout of images, ``contiguous`` or ``channels_last``.
        compiled: whether the model runs through ``torch.compile``.
        patches: whether patch embeddings run as matrix products (:mod:`merging.forward.patches`).
        tokens: whether ``batch`` counts tokens, padding and all, because samples are sequences.
    """

    device: str
    batch: int
    threads: int
    dtype: str = "float32"
    layout: str = "contiguous"
    compiled: bool = False
    patches: bool = False
    tokens: bool = False

    @classmethod
    def choose(
        cls,
        device: str,
        module: nn.Module,
        sample: Tensor | Sequences,
        precision: str = "auto",
        *,
        compile: bool | None = False,
        threads: int | None = None,
        work: int = 0,
        beside: bool = False,
    ) -> Numerics:
        """Follows the rule: one thread and large batches for small models, all cores and small batches for large ones.

        All cores are those that the process is granted (:func:`merging.machine.cores`).

        Convolutional networks run channels-last (SqueezeNet at 96 pixels: less than half the time on a CPU), and on
        a CPU in batches whose input is 4 MB at the most, because larger intermediate results leave the caches. A
        single convolution is a transformer's patch embedding, and decides nothing.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            module: the model.
            sample: one of the data's inputs, as it is stored; of sequences one of them.
            precision: ``fp32``, ``bf16``, or ``auto``: bf16 for models that are not small on a CUDA device that
                multiplies it natively; fp32 on every CPU.
            compile: whether the model is compiled (:mod:`merging.forward.compiling`); None: in bf16 on a CUDA device,
                for models with repeated blocks, where there is enough work; never on a CPU.
            threads: threads of passes on the CPU, instead of the rule's.
            work: samples that are planned to pass forward, all evaluations together.
            beside: whether processes side by side make them (:func:`usual_threads`).

        Raises:
            OptionError: the device is not there, there is no such precision, or so many threads make no sense.
        """
        check_threads(threads)
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS, error=OptionError)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        convolutional = sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1
        place = device_of(device)
        small = parameters < SMALL_MODEL
        threads = threads or usual_threads(module, place, beside=beside)
        if isinstance(sample, Sequences):
            batch = _tokens(place, module, parameters)
        else:
            batch = _batch_on_gpu(place, parameters, sample) if place != "cpu" else 256 if small else 32
            while place == "cpu" and convolutional and batch > 32 and batch * sample.numel() * 4 > 4 << 20:
                batch //= 2
        layout = "channels_last" if convolutional and place != "mps" else "contiguous"
        brief = precision == "bf16" or (precision == "auto" and not small and native_bf16(place))
        if compile is None:
            enough = place.startswith("cuda") and brief and work >= WORTH_COMPILING
            compile = enough and compiler_there() and bool(repeated_blocks(module))
        return cls(
            device=place,
            batch=batch,
            threads=threads,
            dtype="bfloat16" if brief else "float32",
            layout=layout,
            compiled=compile,
            patches=place.startswith("cuda") and any(is_patched(part) for part in module.modules()),
            tokens=isinstance(sample, Sequences),
        )

    def as_before(self, earlier: Numerics, *, compile: bool | None, threads: int | None) -> Numerics:
        """The same as in an earlier session, where a newer rule, other cores or more memory would say otherwise.

        On a CPU the rule depends on the cores alone, and on whether there are workers, which may be others now.

        Args:
            earlier: how passes were made then.
            compile: what was asked for now; None: as it was.
            threads: what was asked for now; None: as many as then.
        """
        now = self if threads is not None else replace(self, threads=earlier.threads)
        if self.device == "cpu":
            return now
        wanted = earlier.compiled if compile is None else compile
        return replace(now, batch=earlier.batch, patches=earlier.patches, compiled=wanted)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype that the model runs in."""
        return torch_dtype(self.dtype)

    @property
    def words(self) -> str:
        """Says all of it in words.

        >>> Numerics(device="cpu", batch=256, threads=1).words
        'fp32 on cpu, 1 thread, batches of 256'
        """
        name = {"float32": "fp32", "bfloat16": "bf16"}.get(self.dtype, self.dtype)
        said = [f"{name} on {self.device}", plural(self.threads, "thread")]
        said.append(f"batches of {self.batch:,} tokens" if self.tokens else f"batches of {self.batch}")
        said += [self.layout.replace("_", " ")] * (self.layout != "contiguous") + ["compiled"] * self.compiled
        said += ["patches as products"] * self.patches
        return ", ".join(said)

    @property
    def remark(self) -> str | None:
        """Says what a reader of scores should know about their precision; None for fp32."""
        if self.dtype == "float32":
            return None
        return (
            "the search ran in bf16, which can move a score by a few samples; the scores of this report are re-scored "
            "in fp32"
        )

    @property
    def exact(self) -> bool:
        """Whether passes are made as those of record are: in fp32, and not compiled."""
        return self.dtype == "float32" and not self.compiled

    def to_json(self) -> dict[str, Any]:
        """Gives all fields as JSON-ready values; ``patches`` and ``tokens`` where it is so: old journals lack them."""
        return {name: value for name, value in asdict(self).items() if name not in ("patches", "tokens") or value}

    @contextlib.contextmanager
    def applied(self, *, tf32: bool = False) -> Iterator[None]:
        """Sets torch's threads for the duration of a run, and what fp32 means.

        Args:
            tf32: whether convolutions on CUDA may round their inputs to 10 bits, as torch lets them. Scores may not:
                fp32 would be three digits less exact there, and another score than a CPU's.
        """
        before, convolutions = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = tf32 and convolutions
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.backends.cudnn.allow_tf32 = convolutions


def usual_threads(module: nn.Module, device: str, *, beside: bool = False) -> int:
    """Number of threads of the CPU that passes have by rule: one for small models, all cores for large ones.

    Args:
        module: the model.
        device: the device that it runs on.
        beside: whether processes side by side share the cores of a CPU; each has one thread then, however many there
            are of them, so that any number computes the same.
    """
    small = sum(parameter.numel() for parameter in module.parameters()) < SMALL_MODEL
    return 1 if small or (beside and device == "cpu") else cores()


def native_bf16(device: str) -> bool:
    """Whether a device is fast enough in bf16 to be used without being asked: CUDA from Ampere on."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] >= 8


def _batch_on_gpu(place: str, parameters: int, sample: Tensor) -> int:
    """Samples a batch on a GPU: fewer where its whole memory, not what happens to be free, is small for the input."""
    batch = _BATCH_ON_GPU
    if place.startswith("cuda"):
        room = (torch.cuda.mem_get_info(place)[1] - 16 * parameters) // 4  # four models in fp32, then a quarter
        while batch > 32 and batch * sample.numel() * 4 * _ACTIVATIONS > room:
            batch //= 2
    return batch


def _tokens(place: str, module: nn.Module, parameters: int) -> int:
    """Tokens a batch: fewer on a GPU whose whole memory is small for a model as wide as its widest embedding."""
    if not place.startswith("cuda"):
        return _TOKENS_ON_CPU
    batch = _TOKENS_ON_GPU
    width = max((part.embedding_dim for part in module.modules() if isinstance(part, nn.Embedding)), default=1)
    room = (torch.cuda.mem_get_info(place)[1] - 16 * parameters) // 4  # four models in fp32, then a quarter
    while batch > 1024 and batch * width * 4 * _ACTIVATIONS > room:
        batch //= 2
    return batch


def check_threads(threads: int | None) -> None:
    """Refuses a number of threads that makes no sense; None is the rule's.

    Raises:
        OptionError: below 1, or more than any machine has.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"threads is {threads}; it is a number from 1 to {MOST_THREADS}, or left out for the rule's")


def device_of(wanted: str) -> str:
    """The device that a name stands for; ``auto``: the fastest kind that is there.

    Raises:
        OptionError: an unknown name, or this machine has none.
    """
    kind, colon, number = wanted.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise unknown("device", wanted, DEVICES, error=OptionError)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise OptionError(f"device '{wanted}' is not available on this machine; try `device=cpu`")
    return wanted

"""What network and preparation score a set: a digest of what the task's own module answers, whatever its weights are.

The same weights in another module (another activation, another size of pictures), or behind another normalisation, are
another model, and no file says so. So the module is run, with weights of noise that no zero hides anything behind, on a
few samples of the set as the task prepares them. What it answers, what it was shown, what it is made of and the code
that it is of make the digest. Where that does not tell two networks apart, there is none, and nothing is remembered.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from merging.evaluation.anatomy import Anatomy
from merging.evaluation.own_code import UnsureError
from merging.forward.device import batch_for, on_device
from merging.forward.live import LiveModel
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split, Task
from merging.storage.raw import bytes_of

SAMPLES = 4
"""Samples of a set that the network is shown, from its beginning to its end."""
SCALES = (1.0, 4.0)
"""Sizes of the weights: activations that saturate do so under large ones."""
_PERIOD = 1_000_003
"""Numbers of noise; a tensor takes them again and again, beginning at a place of its own."""
_ADDRESS = re.compile(r"0x[0-9a-f]+")


class Network:
    """The network and the preparation with which a task's sets are scored.

    Args:
        live: the model; its weights are overwritten, whoever scores loads them first.
        task: prepares samples.
    """

    def __init__(self, live: LiveModel, task: Task) -> None:
        self._live, self._task = live, task

    def digest(self, split: Split) -> str:
        """A digest of what the network answers to samples of a set as they are prepared, and of what it is made of.

        Raises:
            UnsureError: answers that are no numbers, or differ from pass to pass, or code that lies in no file.
        """
        live, digest, told = self._live, blake3(), False
        if callable(forget := getattr(live.module, "forget", None)):
            forget()  # the digest is the same whatever passes were made before
        rows = torch.from_numpy(np.unique(np.linspace(0, len(split) - 1, SAMPLES).round().astype(np.int64)))
        try:
            with live.in_fp32(), torch.inference_mode(), _undisturbed():
                shown, other = (batch_for(self._task, split.inputs[rows], live.device, live.dtype) for _ in range(2))
                if not torch.equal(shown, other):
                    raise UnsureError("samples are prepared otherwise when that is done again")
                _add(digest, shown)
                for scale in SCALES:
                    with live.of_noise(functools.partial(_noise, scale=scale)):
                        logits = live.module(shown.clone())
                        again = logits if scale != SCALES[0] else live.module(shown.clone())
                    if not torch.equal(logits, again):
                        raise UnsureError("the model answers otherwise when it is asked again")
                    told = told or _tells_apart(logits, _samples(split, shown))
                    _add(digest, logits)
                digest.update(self._made_of())  # now, when what a module keeps of a pass is the noise's
        except UnsureError:
            raise
        except Exception as error:  # somebody's module, which may not bear such weights
            raise UnsureError(str(error)) from error
        if not told:
            raise UnsureError("the model answers the same to everything")
        return digest.hexdigest()

    def _made_of(self) -> bytes:
        """A digest of what the model and the preparation are made of, and of the code that they are of.

        Raises:
            UnsureError: some of it lies in no file.
        """
        module = self._live.module
        anatomy = Anatomy(module.state_dict(keep_vars=True).values())
        for value in (_ADDRESS.sub("", repr(module)), module, self._task.prepare):
            anatomy.add(value)
        anatomy.add_code(self._task.build)
        return anatomy.digest()


def _noise(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """Weights for a tensor: normal numbers that keep the size of activations, of vectors positive ones around 1."""
    count = int(np.prod(shape, dtype=np.int64))
    first = int.from_bytes(blake3(name.encode()).digest()[:4], "little") % _PERIOD
    source = _normal() if len(shape) > 1 else _uniform()
    whole = source if first + count <= _PERIOD else source.repeat(-(-(first + count) // _PERIOD))
    values = whole[first : first + count]
    if len(shape) > 1:
        values = values * (scale / max(count // shape[0], 1) ** 0.5)
    return values.reshape(shape)


@functools.cache
def _normal() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(_PERIOD, dtype=np.float32))


@functools.cache
def _uniform() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).random(_PERIOD, dtype=np.float32) + np.float32(0.5))


def _samples(split: Split, shown: Tensor) -> list[Tensor]:
    """What was shown, sample by sample; of sequences each has some rows, whose first column counts the samples."""
    there = on_device(shown, "cpu")
    if not isinstance(split.inputs, Sequences):
        return list(there)
    return list(there[:, 1:].split(there[:, 0].bincount().tolist()))


def _tells_apart(logits: Tensor, shown: Sequence[Tensor]) -> bool:
    """Whether answers are numbers, and others for other samples."""
    if not bool(torch.isfinite(logits).all()):
        return False
    samples, answers = (
        len({bytes(bytes_of(each.contiguous())) for each in some}) for some in (shown, on_device(logits, "cpu"))
    )
    return samples == answers


def _add(digest: blake3, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode()).update(bytes_of(on_device(tensor, "cpu")).data)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts all generators of random numbers back, so that what draws later draws what it would have drawn."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    numpys, pythons = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(pythons)

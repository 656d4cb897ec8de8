"""What network and preparation score a set: a digest of what the task's own module answers, whatever its weights are.

The same weights in another module (another activation, another size of pictures), or behind another normalisation, are
another model, and no file says so. So the module is run, with weights of noise that no zero hides anything behind, on a
few samples of the set as the task prepares them. What it answers, what it was shown, how it is built and the code that
it is of make the digest. Where that does not tell two networks apart, there is none, and nothing is remembered.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

import merging
from merging.forward.device import batch_for, on_device
from merging.forward.live import LiveModel
from merging.plugins.task import Split, Task
from merging.storage.raw import bytes_of

SAMPLES = 4
"""Samples of a set that the network is shown, from its beginning to its end."""
SCALES = (1.0, 4.0)
"""Sizes of the weights: activations that saturate do so under large ones."""
_PERIOD = 1_000_003
"""Numbers of noise; a tensor takes them again and again, beginning at a place of its own."""
_ADDRESS = re.compile(r"0x[0-9a-f]+")


class UnsureError(Exception):
    """Nobody can say that two networks are one."""


class Network:
    """The network and the preparation with which a task's sets are scored.

    Args:
        live: the model; its weights are overwritten, whoever scores loads them first.
        task: prepares samples.
    """

    def __init__(self, live: LiveModel, task: Task) -> None:
        self._live, self._task = live, task

    @functools.cached_property
    def _built(self) -> bytes:
        """A digest of how the model is built, and of somebody's own code that it and the preparation are of.

        Raises:
            UnsureError: some of it lies in no file.
        """
        digest = blake3(structure(self._live.module).encode())
        for path in _files(self._live.module, self._task):
            digest.update(path.read_bytes())
        return digest.digest()

    def digest(self, split: Split) -> str:
        """A digest of what the network answers to samples of a set as they are prepared, and of how it is built.

        Raises:
            UnsureError: answers that are no numbers, or differ from pass to pass, or code that lies in no file.
        """
        live, digest, told = self._live, blake3(self._built), False
        rows = torch.from_numpy(np.unique(np.linspace(0, len(split) - 1, SAMPLES).round().astype(np.int64)))
        try:
            with live.in_fp32(), torch.inference_mode(), torch.random.fork_rng(devices=_devices()):
                shown = batch_for(self._task, split.inputs[rows], live.weights.device, live.dtype)
                _add(digest, shown)
                for scale in SCALES:
                    with live.of_noise(functools.partial(_noise, scale=scale)):
                        logits, again = live.module(shown.clone()), live.module(shown.clone())
                    if not torch.equal(logits, again):
                        raise UnsureError("the model answers otherwise when it is asked again")
                    told = told or _tells_apart(logits, shown)
                    _add(digest, logits)
        except UnsureError:
            raise
        except Exception as error:  # somebody's module, which may not bear such weights
            raise UnsureError(str(error)) from error
        if not told:
            raise UnsureError("the model answers the same to everything")
        return digest.hexdigest()


def structure(module: nn.Module) -> str:
    """Writes down how a module is built: its parts as they print, their classes, and the plain values in them."""
    lines = [_ADDRESS.sub("", repr(module))]
    for name, part in module.named_modules():
        kind = type(part)
        plain = {key: value for key, value in vars(part).items() if _is_plain(value) and key != "training"}
        lines.append(f"{name} {kind.__module__}.{kind.__qualname__} {sorted(plain.items())!r}")
    return "\n".join(lines)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)


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


def _tells_apart(logits: Tensor, shown: Tensor) -> bool:
    """Whether answers are numbers, and others for other samples."""
    if not bool(torch.isfinite(logits).all()):
        return False
    samples, answers = (
        len({bytes(bytes_of(row)) for row in on_device(rows, "cpu").contiguous()}) for rows in (shown, logits)
    )
    return samples == answers


def _add(digest: blake3, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode()).update(bytes_of(on_device(tensor, "cpu")).data)


def _files(module: nn.Module, task: Task) -> list[Path]:
    """The files of somebody's own code that builds, prepares and is the model; other code has a version.

    Raises:
        UnsureError: some lies in no file.
    """
    kinds = {type(part) for part in module.modules()}
    found = {path for code in (*kinds, task.build, task.prepare) for path in _homes(code)}
    return sorted(path for path in found if not _has_a_version(path))


def _homes(code: object) -> Iterator[Path]:
    """The files of a function, of what it wraps and of the values it was given; of an object, its class's."""
    if isinstance(code, functools.partial):
        yield from _homes(code.func)
        return
    code = inspect.unwrap(code) if callable(code) else code
    code = getattr(code, "__func__", code)
    if not inspect.isfunction(code) and not inspect.isclass(code):
        code = type(code)
    if getattr(code, "__module__", "").partition(".")[0] in ("torch", "merging", "builtins"):
        return
    try:
        file = inspect.getsourcefile(code)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise UnsureError(f"{code!r} is in no file")
    yield Path(file).resolve()


def _has_a_version(path: Path) -> bool:
    """Whether a file is of an installed package, or of this one, whose code is known otherwise."""
    own = Path(merging.__file__).parent
    homes = {own, *(each.resolve() for each in own.iterdir() if each.is_dir())}
    return "site-packages" in path.parts or any(home in path.parents for home in homes)


def _devices() -> list[int]:
    """GPUs whose generators are put back, so that what draws later draws what it would have drawn."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []

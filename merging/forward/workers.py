"""How a user asks for processes that evaluate side by side: the words of ``workers``, as a value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from merging.errors import OptionError, nearest
from merging.machine import cores_of_all
from merging.values.wording import beginning, plural, shown

Kind: TypeAlias = Literal["local", "gpu", "ray"]
WORDS = ("gpu", "ray", "none")
"""Words in the place of a number; a number or an address may follow the first two."""
AUTO = "auto"
"""Address of the Ray that runs on this machine, wherever its head is."""
MOST = 4096
"""Largest number of workers that may be asked for: more than any cluster that this would pay on."""
SPELLED = "a number, gpu, gpu:N, ray, ray:HOST:PORT, ray:auto or, for N of them, N@ray:HOST:PORT"
_GPU = re.compile(r"gpu:(\d+)")
_RAY = re.compile(r"(?:(\d+)@)?ray(?::(.*))?")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers that are asked for: of which kind, how many, and where.

    Attributes:
        kind: ``local``: processes of this machine, on the device that is asked for; ``gpu``: the same, one a GPU;
            ``ray``: actors of a Ray cluster.
        count: how many; None: one a GPU (``gpu``), or one a GPU of the cluster, one a CPU where it has none (``ray``).
        address: Ray's: ``HOST:PORT`` of the cluster's head, ``auto`` for the one that this machine belongs to; None: a
            Ray of its own on this machine, for as long as the run.
    """

    kind: Kind
    count: int | None = None
    address: str | None = None

    @classmethod
    def of(cls, said: int | str) -> Workers:
        """Reads what a user says.

        >>> Workers.of("4@ray:10.0.0.1:6379")
        Workers(kind='ray', count=4, address='10.0.0.1:6379')
        >>> Workers.of(2), Workers.of("gpu"), Workers.of("ray:auto").address
        (Workers(kind='local', count=2, address=None), Workers(kind='gpu', count=None, address=None), 'auto')

        Raises:
            OptionError: it is no number of workers, no such word, or no address.
        """
        text = str(said).strip()
        if re.fullmatch(r"[+-]?\d+", text):
            return cls(kind="local", count=_counted(text, text))
        if text == "gpu":
            return cls(kind="gpu")
        if found := _GPU.fullmatch(text):
            return cls(kind="gpu", count=_counted(found[1], text))
        if found := _RAY.fullmatch(text):
            count = None if found[1] is None else _counted(found[1], text)
            return cls(kind="ray", count=count, address=None if found[2] is None else _address(found[2], text))
        raise _unknown(text)

    @property
    def elsewhere(self) -> bool:
        """Whether a machine is named, which somebody else may own."""
        return self.address not in (None, AUTO)

    @property
    def said(self) -> int | str:
        """The words that a user would write: the same for all spellings of one thing."""
        if self.kind == "local" and self.count is not None:
            return self.count
        if self.kind == "gpu":
            return "gpu" if self.count is None else f"gpu:{self.count}"
        counted = "" if self.count is None else f"{self.count}@"
        return f"{counted}ray" + ("" if self.address is None else f":{self.address}")

    def on(self, device: str) -> str:
        """The device on which a run with these workers makes its passes: with ``gpu`` a GPU.

        Args:
            device: the device that was asked for.

        Raises:
            OptionError: the two contradict each other.
        """
        if self.kind == "ray" and device.startswith("cuda:"):  # each of its workers has one GPU, and sees no other
            raise OptionError(f"`workers` is {self.said}, where GPUs are given out, but `device` is {device}; say cuda")
        if self.kind != "gpu":
            return device
        if device not in ("auto", "cuda"):
            raise OptionError(f"`workers` is {self.said}, but `device` is {device}; leave one of them out")
        return "cuda"

    def check_gpus(self, there: int) -> None:
        """Refuses, before any work, GPUs that this machine does not have.

        Args:
            there: how many it has.

        Raises:
            OptionError: there are too few, or none.
        """
        if self.kind != "gpu" or there >= (self.count or 1):
            return
        has = plural(there, "GPU") if there else "none that torch can use"
        more = f"`workers=gpu` takes {'that one' if there == 1 else 'all of them'}"
        way = more if there else "`workers=2` is two processes on the CPU"
        raise OptionError(f"`workers` is {self.said}, and this machine has {has}; {way}")

    def remark(self, threads: int, device: str) -> str | None:
        """A sentence for where workers of this machine have more threads than it has cores; None where they have not.

        Args:
            threads: threads of each.
            device: the device of their passes.
        """
        there = cores_of_all()
        if self.kind != "local" or self.count is None or device != "cpu" or self.count * threads <= there:
            return None
        each = "" if threads == 1 else f" of {threads} threads"
        return (
            f"{plural(self.count, 'worker')}{each} share {plural(there, 'core')}: the same bits, not sooner than with "
            f"{max(1, there // threads)}"
        )


def _counted(number: str, text: str) -> int:
    count = int(number) if len(number) < 20 else MOST + 1
    if not 1 <= count <= MOST:
        raise OptionError(f"`workers` is {beginning(text, 60)}, but their number must be between 1 and {MOST}")
    return count


def _address(address: str, text: str) -> str:
    if address == AUTO:
        return AUTO
    found = _PLACE.fullmatch(address)
    if found and 0 < int(found[2]) < 1 << 16:
        return address
    if address.startswith("//"):
        way = "that is an address of Ray's client; from a machine of the cluster its head is ray:HOST:6379"
    elif address.isdecimal():
        way = f"an address is HOST:PORT; {beginning(address, 20)} workers are {beginning(address, 20)}@ray"
    elif nearest(address, [AUTO]):
        way = f"did you mean 'ray:{AUTO}'?"
    else:
        named = re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", address)
        way = f"an address is HOST:PORT, such as ray:{address if named else '10.0.0.1'}:6379"
    raise OptionError(f"`workers` is {shown(text)}; {way}")


def _unknown(text: str) -> OptionError:
    head, _, tail = text.partition(":")
    number, at, word = head.rpartition("@")
    near = nearest(word, WORDS)
    if number.isdecimal() and word == "gpu":
        way = f"{beginning(number, 20)} GPUs are gpu:{beginning(number, 20)}"
    elif _PLACE.fullmatch(text) and not near:
        way = f"a cluster of Ray there is 'ray:{beginning(text, 60)}'"
    elif near and near != word:
        meant = number + at + near + (f":{tail}" if tail and near != "none" else "")
        way = f"did you mean '{beginning(meant, 60)}'?"
    else:
        way = f"it is {SPELLED}"
    return OptionError(f"`workers` is {shown(text)}; {way}")

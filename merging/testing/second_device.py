"""A second device where there is none: tensors that say they lie on ``cuda``, computed on the CPU.

What a GPU refuses is refused here: one operation on tensors of two devices, an index on the device into a tensor on the
CPU, ``.numpy()`` of a tensor there, a CPU generator for draws there. Copies from pinned memory on a side stream arrive
when something waits for them, and not before. So whole runs on a GPU are tried on any machine.

A tensor's place is kept on its storage: views, ``parameter.data = …`` and in-place writes need nothing of their own.
Not here: the numbers of a GPU, its generator, ``torch.compile``, and custom functions whose backward asks for a device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from merging.testing.side_streams import Event, Stream

_CPU, _CUDA = torch.device("cpu"), torch.device("cuda", 0)
_aten = torch.ops.aten
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_COPIES = {_aten.copy_, _aten._to_copy, _aten.copy, _aten.set_, _aten._foreach_copy_}
_INDEXED = {
    _aten.index,
    _aten._unsafe_index,
    _aten.index_put,
    _aten.index_put_,
    _aten._index_put_impl_,
    _aten._unsafe_index_put,
}
_SCALARS = {
    _aten.where,
    _aten.masked_fill,
    _aten.masked_fill_,
    _aten.fill,
    _aten.fill_,
    _aten.index_fill,
    _aten.index_fill_,
}
"""Operations that take a number from the CPU besides the pointwise ones, which all do."""


@contextlib.contextmanager
def second_device(free: int = 1 << 33, capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Makes ``torch.device("cuda")`` usable for a while.

    Args:
        free: bytes that are said to be free there.
        capability: compute capability of the GPU; from (8, 0) on it multiplies bf16 natively.
    """
    calls = _Calls()
    stubs: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: "none",
        "mem_get_info": lambda device=None: (free, free),
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: calls.synchronize(),
        "_lazy_init": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": _set_rng_state,
        "Event": Event,
        "Stream": Stream,
        "stream": calls.on,
        "current_stream": lambda device=None: calls.stream,
    }
    with contextlib.ExitStack() as stack:
        for name, stub in stubs.items():
            stack.enter_context(patch.object(torch.cuda, name, stub))
        if hasattr(torch, "accelerator"):  # since torch 2.6
            stack.enter_context(patch.object(torch.accelerator, "current_stream", lambda device=None: calls.stream))
        stack.enter_context(patch.object(torch.backends.cudnn, "is_acceptable", lambda tensor: False))
        stack.enter_context(patch.object(Tensor, "record_stream", lambda tensor, stream: None))
        stack.enter_context(patch.object(torch.autocast, "__init__", _autocast(torch.autocast.__init__)))
        stack.enter_context(_Operations(calls))
        stack.enter_context(calls)
        yield


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor lies on the second device."""
    return "on_second_device" in getattr(_storage(tensor), "__dict__", ())


def _put(tensor: Tensor, there: bool) -> None:
    """Says where a fresh tensor lies."""
    storage = _storage(tensor)
    if storage is not None and there:
        storage.__dict__["on_second_device"] = True
    elif storage is not None:
        storage.__dict__.pop("on_second_device", None)


def _storage(tensor: Tensor) -> Any:
    """What keeps a tensor's values on the CPU; None for tensors without, and those of other devices."""
    while _is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    return storage if storage.device == _CPU else None


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
        elif isinstance(value, dict):
            found += _tensors(value.values())
    return found


def _same(one: Tensor, others: Iterable[Tensor]) -> bool:
    """Whether a tensor's storage is that of another one."""
    storage = _storage(one)
    return storage is not None and any(storage is _storage(other) for other in others)


def _set_rng_state(state: Tensor, device: object = None) -> None:
    del device
    if state.dtype != torch.uint8 or is_there(state):
        raise TypeError("RNG state must be a torch.ByteTensor")


def _autocast(made: Callable[..., None]) -> Callable[..., None]:
    """The CPU's own autocast stands for the GPU's."""

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        made(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return init


class _Move(torch.autograd.Function):
    """A copy on the other device; its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, there: bool) -> Tensor:
        ctx.there = is_there(tensor)
        return _copied(tensor, there)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _copied(slope, ctx.there), None


def _copied(tensor: Tensor, there: bool) -> Tensor:
    copy = tensor.clone()
    _put(copy, there)
    return copy


class _Calls(TorchFunctionMode):
    """What Python asks of tensors: where they are, to go elsewhere, to be made there."""

    def __init__(self) -> None:
        super().__init__()
        self.there = False  # whether what is made without a place, inside a call, is made on the device
        self.default = self.stream = Stream()
        self.streams = [self.stream]  # that were used
        self._own: dict[Any, Callable[..., Any]] = {
            Tensor.device.__get__: lambda x: _CUDA if is_there(x) else Tensor.device.__get__(x),
            Tensor.is_cuda.__get__: is_there,  # type: ignore[attr-defined]
            Tensor.is_cpu.__get__: lambda x: Tensor.is_cpu.__get__(x) and not is_there(x),  # type: ignore[attr-defined]
            Tensor.get_device: lambda x: 0 if is_there(x) else Tensor.get_device(x),
            Tensor.to: self._to,
            Tensor.cpu: lambda x, **how: self._moved(x, False),
            Tensor.cuda: lambda x, device=None, non_blocking=False, **how: self._moved(x, True, non_blocking),
            Tensor.type_as: lambda x, other: self._moved(x.type_as(other), is_there(other)),
            Tensor.numpy: self._numpy,
            Tensor.__array__: self._array,
            Tensor.pin_memory: lambda x, device=None: _pinned(x.clone()),
            Tensor.is_pinned: lambda x, device=None: _is_pinned(x),
        }

    @contextlib.contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        """``torch.cuda.stream``."""
        before, self.stream = self.stream, stream or self.stream
        if self.stream not in self.streams:
            self.streams.append(self.stream)
        try:
            yield
        finally:
            self.stream = before

    def synchronize(self) -> None:
        """All that was asked for is done."""
        for stream in self.streams:
            stream.synchronize()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call from Python; inside it this mode is off."""
        kwargs = dict(kwargs or {})
        own = self._own.get(func)
        if own is not None:
            return own(*args, **kwargs)
        given = _tensors([*args, *kwargs.values()])
        wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if wanted is not None and wanted.type == "cuda":
            kwargs["device"] = _CPU
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type == "cpu":
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        pinned = bool(kwargs.pop("pin_memory", False))
        before, self.there = self.there, any(is_there(tensor) for tensor in given)
        try:
            made = func(*args, **kwargs)
        finally:
            self.there = before
        if pinned:
            return _pinned(made)
        if func in (Tensor.__deepcopy__, Tensor.new_tensor) and wanted is None:
            _put(made, is_there(args[0]))
        if wanted is not None and wanted.type in ("cpu", "cuda") and isinstance(made, Tensor):
            if is_there(made) != (wanted.type == "cuda") and _same(made, given):
                return self._moved(made, wanted.type == "cuda")
            _put(made, wanted.type == "cuda")
        return made

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            return self._moved(tensor.to(other.dtype), is_there(other), kwargs.get("non_blocking", False))
        copy = kwargs.pop("copy", False)
        said: tuple[Any, ...] = torch._C._nn._parse_to(*args, **kwargs)
        device, dtype, non_blocking, layout = said
        if device is not None and device.type not in ("cpu", "cuda"):
            return tensor.to(*args, **kwargs)
        there = is_there(tensor) if device is None else device.type == "cuda"
        kept = torch.preserve_format if layout is None else layout
        moves = there != is_there(tensor)
        if dtype is not None or layout is not None or (copy and not moves):
            wanted = tensor.dtype if dtype is None else dtype
            tensor = tensor.to(wanted, memory_format=kept, copy=copy)
        return self._moved(tensor, there, non_blocking)

    def _moved(self, tensor: Tensor, there: bool, non_blocking: bool = False) -> Tensor:
        if is_there(tensor) == there or tensor.device.type != "cpu":
            return tensor
        if non_blocking and self.stream is not self.default and _is_pinned(tensor):
            late = _copied(torch.zeros_like(tensor), there)
            self.stream.pending.append(lambda: late.copy_(tensor))
            self.stream.leaving.append(_storage(tensor))
            return late
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or not tensor.requires_grad:
            return _copied(tensor, there)
        moved: Tensor = _Move.apply(tensor, there)
        return moved

    @staticmethod
    def _numpy(tensor: Tensor, *, force: bool = False) -> Any:
        if is_there(tensor) and not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first."
            )
        return tensor.numpy(force=force)

    def _array(self, tensor: Tensor, dtype: Any = None) -> Any:
        found = self._numpy(tensor.detach() if not tensor.requires_grad else tensor)
        return found if dtype is None else found.astype(dtype, copy=False)


def _pinned(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().__dict__["pinned"] = True
    return tensor


def _is_pinned(tensor: Tensor) -> bool:
    return "pinned" in tensor.untyped_storage().__dict__


class _Operations(TorchDispatchMode):
    """Every operation, also those of backward passes: refused where a GPU would, its results on the device."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        given = _tensors([*args, *kwargs.values()])
        leaving = [storage for stream in self._calls.streams for storage in stream.leaving]
        if leaving and func._schema.is_mutable and any(_storage(given[0]) is storage for storage in leaving):
            raise RuntimeError(f"{func}: this memory is written over while a copy of it is on its way to the device")
        there = self._calls.there if not given else _place_of_results(func, args, kwargs, given)
        made = func(*args, **kwargs)
        if there:
            for tensor in [made] if isinstance(made, Tensor) else _tensors([made]):
                if not _same(tensor, given):
                    _put(tensor, True)
        return made


def _place_of_results(func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> bool:
    """Whether an operation's results lie on the device.

    Raises:
        RuntimeError: a GPU would refuse the operation.
    """
    if not any(is_there(tensor) for tensor in given):
        return False
    packet = func.overloadpacket
    if packet in _COPIES:
        return is_there(_tensors(args)[0])
    if packet in _INDEXED:
        if not is_there(given[0]):
            raise RuntimeError(
                f"{func}: indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        given = [given[0], *_tensors(args[2:3])]
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    numbers = torch.Tag.pointwise in func.tags or packet in _SCALARS | _INDEXED or "_foreach" in str(func)
    if any(not is_there(x) and x.device.type == "cpu" and not (numbers and x.dim() == 0) for x in given):
        raise RuntimeError(
            f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        )
    return True

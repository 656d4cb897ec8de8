"""What a module and the functions beside it are made of: every value that their code may read, as far as it goes.

Running a network on a few samples tells much and not all: a limit that none of them reaches, a rule for a token that
none of them has. So what its parts, closures, arguments, globals and hooks hold is taken down, too.
"""

from __future__ import annotations

import dis
import functools
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from merging.evaluation.own_code import UnsureError, digest_of, home, is_own, package
from merging.storage.raw import bytes_of

MOST = 200_000
"""Values that are taken down; what holds more is not told."""
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, np.generic, np.dtype, range)
_TORCHS = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
"""What torch keeps in every module; parts, tensors and hooks are looked at apart."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOLDERS = (Mapping, Set, tuple, list)
_CODE = (types.FunctionType, types.MethodType, functools.partial, type)
_WRAPPED = ("__func__", "fget", "func", "__wrapped__")
"""Where static methods, properties and their like keep the function that they are of."""


class Anatomy:
    """Takes down what things are made of.

    Args:
        replaced: tensors whose values are another model's soon: of them, only shape and dtype count.
    """

    def __init__(self, replaced: Iterable[Tensor] = ()) -> None:
        self._digest, self._replaced = blake3(), {id(tensor) for tensor in replaced}
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no other gets its id
        self._files, self._modules = set[Path](), set[str]()

    def digest(self) -> bytes:
        """A digest of all that was taken down, and of the code that it is of."""
        return self._digest.digest() + digest_of(self._files, self._modules)

    def add(self, value: object) -> None:
        """Takes down a value, and whatever it holds.

        Raises:
            UnsureError: some code lies in no file, or it holds too much.
        """
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self._say("again", self._seen[id(value)])
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if len(self._seen) > MOST:
            raise UnsureError("it holds too much")
        for part in self._parts(value):
            self.add(part)
        self._say("end")

    def add_code(self, value: object) -> None:
        """Takes down what code something is of, and no values: what that makes is looked at itself."""
        if isinstance(value, functools.partial):
            value = (value.func, *value.args, *value.keywords.values())
        elif isinstance(value, types.MethodType):
            value = (value.__func__, value.__self__)
        if isinstance(value, tuple):
            for each in value:
                self.add_code(each)
        elif isinstance(value, type):
            self._home(value)
        elif isinstance(value, types.FunctionType):
            self._home(value)
            self.add_code((*_cells(value), vars(value).get("__wrapped__")))
        elif package(type(value)) == "merging" and not isinstance(value, nn.Module):
            self.add_code(tuple(each for each in _attributes(value) if isinstance(each, _CODE)))
        elif callable(value):
            self._home(type(value))

    def _say(self, *words: object) -> None:
        self._digest.update(repr(words).encode("utf-8", "surrogatepass"))

    def _home(self, code: types.FunctionType | type) -> None:
        name = str(getattr(code, "__module__", ""))
        self._say(name, code.__qualname__)
        if (file := home(code)) is not None:
            self._files.add(file)
            self._modules.add(name)

    def _parts(self, value: object) -> Iterator[object]:
        """What a value holds; what it is itself is taken down meanwhile."""
        if isinstance(value, Tensor | np.ndarray):
            self._tensor(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        elif isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, types.ModuleType):
            self._say("module", value.__name__)
        else:
            yield type(value)
            if isinstance(value, nn.Module):
                yield from self._of_module(value)
                return
            held = _items(value)
            if held and all(isinstance(each, _PLAIN) for each in held):
                self._say(held)
            else:
                yield from held
            named = _attributes(value)
            if package(type(value)) in sys.stdlib_module_names and not isinstance(value, types.SimpleNamespace):
                named = [vars(value)["__wrapped__"]] if "__wrapped__" in getattr(value, "__dict__", ()) else []
            if not held and not named and not isinstance(value, _HOLDERS):
                self._say(_ADDRESS.sub("", repr(value)))
            yield from named

    def _tensor(self, value: Tensor | np.ndarray) -> None:
        self._say(str(value.dtype), tuple(value.shape))
        if isinstance(value, np.ndarray):
            self._digest.update(
                np.ascontiguousarray(value).tobytes() if value.dtype != object else repr(value).encode()
            )
        elif id(value) not in self._replaced:
            self._digest.update(bytes_of(value.detach().cpu().contiguous()).data)

    def _of_class(self, kind: type) -> Iterator[object]:
        self._home(kind)
        if is_own(kind):
            yield from (each for each in kind.__mro__[1:] if is_own(each))
            for name, value in vars(kind).items():
                if name not in ("__dict__", "__weakref__", "__doc__", "__module__"):
                    self._say(name)
                    yield next((getattr(value, of) for of in _WRAPPED if hasattr(value, of)), value)

    def _of_function(self, function: types.FunctionType) -> Iterator[object]:
        self._home(function)
        if package(function) == "torch":
            return
        yield from _cells(function)
        yield from (function.__defaults__, function.__kwdefaults__)
        if package(function) != "merging":
            yield vars(function)
        if is_own(function):
            yield from _globals(function)

    def _of_module(self, module: nn.Module) -> Iterator[object]:
        """A module's attributes and hooks, its tensors, and its parts; nothing that a pass of ours hangs on it."""
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsureError("a scripted module's code lies in no file")
        yield type(module).forward
        for name, value in vars(module).items():
            if name not in _TORCHS:
                self._say(name)
                yield value
        for hooks in _HOOKS:
            yield from (hook for hook in getattr(module, hooks).values() if package(hook) not in ("merging", "torch"))
        own = {**module._parameters, **module._buffers, **module._modules}
        for name, part in own.items():
            self._say(name)
            yield part


def _items(value: object) -> list[object]:
    """What a container holds, in order."""
    if isinstance(value, Mapping):
        return [each for pair in value.items() for each in pair]
    if isinstance(value, Set):
        return sorted(value, key=repr)
    return list(value) if isinstance(value, tuple | list) else []


def _attributes(value: object) -> list[object]:
    """What an object holds under names, and these."""
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    held = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}
    return [each for pair in held.items() for each in pair]


def _slots(kind: type) -> tuple[str, ...]:
    found = vars(kind).get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(name for name in found if not name.startswith("__"))


def _cells(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None


def _globals(function: types.FunctionType) -> Iterator[object]:
    """What a function's code reads of its module, and of own modules that are known there."""
    names, attributes = set[str](), set[str]()
    for code in _codes(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(step.argval)
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(step.argval)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield from (name, value)
        if isinstance(value, types.ModuleType) and is_own(value):
            for attribute in sorted(attributes & vars(value).keys()):
                yield from (attribute, vars(value)[attribute])


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)

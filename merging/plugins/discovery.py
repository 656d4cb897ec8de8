"""Finds plug-ins: the built-in folders, entry points of installed packages, and single files (``plugin``)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

from merging.errors import MergingError, near_path, raised
from merging.plugins.registry import PLUGINS, Registry
from merging.plugins.user_code import loaded_from, running

FOLDERS = (
    "strategies",
    "partitioners",
    "optimizers",
    "objectives",
    "training.regimes",
    "tasks.suites",
    "models.sources",
    "data.forms",
    "sinks",
)
"""Folders with a plug-in a file, in the order of ``PLUGINS``. Some lie higher than this module, which knows them by
name only."""


@functools.cache
def load_installed() -> tuple[str, ...]:
    """Imports every built-in plug-in and every entry point; returns a line for each entry point that failed.

    A broken third-party package must not keep anybody from using the rest.
    """
    for folder in FOLDERS:
        _import_folder(folder)
    failed: list[str] = []
    points = _entry_points(failed)
    for registry in PLUGINS.values():
        failed += _enter_all(points, registry)
    return tuple(failed)


@functools.cache
def load_kind(kind: str) -> None:
    """Imports the plug-ins of one kind alone, for a shell that waits; what fails is left out in silence."""
    _import_folder(dict(zip(PLUGINS, FOLDERS, strict=True))[kind])
    _enter_all(_entry_points([]), PLUGINS[kind])


def _import_folder(folder: str) -> None:
    package = importlib.import_module(f"merging.{folder}")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f"{package.__name__}.{module.name}")


def _enter_all(points: Sequence[EntryPoint], registry: Registry[Any]) -> list[str]:
    """Loads the entry points of a kind; returns a line for each that failed."""
    failed = []
    for point in sorted((point for point in points if point.group == registry.group), key=lambda each: each.name):
        try:
            _enter(point, registry)
        except Exception as error:  # third-party code may raise anything while it is imported
            why = str(error) if isinstance(error, MergingError) else raised(error, whole=True)
            failed.append(f"plug-in {point.value} is left out: {why}")
    return failed


def _entry_points(failed: list[str]) -> list[EntryPoint]:
    """Every entry point of our groups, once; a package whose list cannot be read is named in ``failed``."""
    found: dict[tuple[str, str, str], EntryPoint] = {}
    groups = {registry.group for registry in PLUGINS.values()}
    for package in importlib.metadata.distributions():
        try:
            own = [point for point in package.entry_points if point.group in groups]
        except Exception as error:  # a line without "=" raises whatever it provokes
            why = "a line has no '='; write name = package.module:Class" if _lacks_equals(package) else raised(error)
            failed.append(f"the entry points of {package.metadata['Name']} are left out: they cannot be read ({why})")
            continue
        for point in own:  # an older version further down the path has the same
            found.setdefault((point.group, point.name, point.value), point)
    return list(found.values())


def _lacks_equals(package: Distribution) -> bool:
    """Whether the list of entry points has a line that is neither a heading nor ``name = value``."""
    lines = [line.strip() for line in (package.read_text("entry_points.txt") or "").splitlines()]
    return any(line and line[0] not in "[#;" and "=" not in line for line in lines)


def _enter(point: EntryPoint, registry: Registry[Callable[..., Any]]) -> None:
    """Loads an entry point, and enters what its module has not entered itself.

    Raises:
        MergingError: it has no name, names no object, or one that is no plug-in of this kind.
        PluginError: its module fails while it is imported; file and line are named.
    """
    if not point.name:
        raise MergingError(f"its entry point has no name; write name = {point.value} below [{point.group}]")
    if EntryPoint.pattern.match(point.value) is None or ":" not in point.value:
        raise MergingError(f"its entry point '{point.name}' names no object; write {point.name} = package.module:Class")
    with running(f"importing {point.module}", point.module):
        loaded = point.load()
    if not any(registry[name] is loaded for name in registry):
        registry.register(point.name)(loaded)


def load_file(path: Path | str) -> None:
    """Runs a plug-in file, whose decorators register what it defines; one that is loaded already is not run again.

    Raises:
        MergingError: there is no such file, or it fails; the cause is named.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise MergingError(f"plug-in {path}: no such file{near_path(path)}")
    if loaded_from(file) is not None:
        return
    _run(_module_of(file), importlib.util.spec_from_file_location(_module_of(file), file), path)


def files() -> dict[str, bytes]:
    """Plug-in files that were run in this process: path → what stands there, for another process."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.startswith(_MODULE) and path is not None:
            with contextlib.suppress(OSError):
                found[path] = Path(path).read_bytes()
    return found


def load_sent(sent: Mapping[str, bytes]) -> None:
    """Runs plug-in files of another process, each under its path, whether it is on this machine or not.

    One that fails here is left out: perhaps nothing of it is needed. Where something is, :func:`needed` says why it is
    not there.
    """
    for path, source in sent.items():
        name = _module_of(Path(path))
        if name not in sys.modules:
            try:
                _run(name, importlib.util.spec_from_file_location(name, path, loader=_Sent(path, source)), path)
            except MergingError as error:
                sys.modules.pop(name, None)
                _FAILED[name] = error


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Reads what may need plug-in files that were sent.

    Raises:
        MergingError: one of them has failed here.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _FAILED.get(error.name or "", error) from None


_FAILED: dict[str, MergingError] = {}
"""Modules of files that were sent and have failed, with what they have raised."""


_MODULE = "merging_plugin_"
"""Begins the names of modules that plug-in files become."""


def _module_of(file: Path) -> str:
    return f"{_MODULE}{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"


class _Sent(SourceLoader):
    """Loads what another process has read."""

    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:
        """The path in the other process, which errors name."""
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        """What stands there.

        Raises:
            OSError: something else is asked for.
        """
        if path != self._path:
            raise OSError(f"{path!r} was not sent")
        return self._source


def _run(name: str, spec: ModuleSpec | None, path: Path | str) -> None:
    """Runs a plug-in file as a module.

    Raises:
        MergingError: it is none, or fails.
    """
    if spec is None or spec.loader is None:
        raise MergingError(f"plug-in {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with running(f"plug-in {path}", name, error=MergingError):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def load_all(plugins: Sequence[Path | str] = ()) -> tuple[str, ...]:
    """Everything there is, then the given files; returns warnings about what could not be loaded."""
    warnings = load_installed()
    for path in plugins:
        load_file(path)
    return warnings

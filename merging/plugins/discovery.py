"""Finds plug-ins: the built-in folders, entry points of installed packages, single files given with ``--plugin``."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from merging.errors import MergingError, raised
from merging.plugins.registry import PLUGINS, tasks
from merging.plugins.user_code import contained

FOLDERS = ("strategies", "partitioners", "optimizers", "objectives", "training.regimes")
"""Folders with a plug-in a file. They and the tasks lie higher than this module, which knows them by name only."""
TASKS = "tasks.catalogue"


@functools.cache
def load_installed() -> tuple[str, ...]:
    """Imports every built-in plug-in and every entry point; returns a line for each entry point that failed.

    A broken third-party package must not keep anybody from using the rest.
    """
    for folder in FOLDERS:
        package = importlib.import_module(f"merging.{folder}")
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            importlib.import_module(f"{package.__name__}.{module.name}")
    importlib.import_module(f"merging.{TASKS}")
    failed = []
    for registry in (*PLUGINS.values(), tasks):
        points = sorted(importlib.metadata.entry_points(group=registry.group), key=lambda point: point.name)
        for point in points:
            try:
                with contained():
                    loaded = point.load()
                if callable(loaded) and loaded not in [registry[name] for name in registry]:
                    registry.register(point.name)(loaded)
            except Exception as error:  # third-party code may raise anything while it is imported
                failed.append(f"plug-in {point.value} is left out: {raised(error, whole=True)}")
    return tuple(failed)


def load_file(path: Path | str) -> None:
    """Runs a plug-in file, whose decorators register what it defines.

    Raises:
        MergingError: there is no such file, or it fails; the cause is named.
    """
    file = Path(path).expanduser().resolve()
    name = f"merging_plugin_{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"
    if name in sys.modules:
        return
    if not file.is_file():
        raise MergingError(f"--plugin {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise MergingError(f"--plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with contained():
            spec.loader.exec_module(module)
    except MergingError:
        del sys.modules[name]
        raise
    except Exception as error:  # the user's file may raise anything
        del sys.modules[name]
        raise MergingError(f"--plugin {path} failed: {raised(error, whole=True)}") from error


def load_all(plugins: Sequence[Path | str] = ()) -> tuple[str, ...]:
    """Everything there is, then the given files; returns warnings about what could not be loaded."""
    warnings = load_installed()
    for path in plugins:
        load_file(path)
    return warnings

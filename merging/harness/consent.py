"""Task files of lm-eval that run code: found by what they say, before anything of them is run."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import yaml

from merging.errors import RequirementError, TaskError, raised, showable


class Function(str):
    """Name of a function, as it stands behind ``!function`` in a task file."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML, functions by name alone."""


_Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))


def read(path: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], list[tuple[Path, dict[str, Any]]]]:
    """Reads a task file with the files that it includes; runs nothing.

    Args:
        path: the file.
        above: files that include it.

    Returns:
        What it says, with what it includes; and each of the files with what it says alone.

    Raises:
        TaskError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            own = yaml.load(file, Loader=_Loader)  # noqa: S506 (derived from the safe one)
        if not isinstance(own, dict):
            raise TypeError(f"holds a {type(own).__name__}, and no keys")
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise TaskError(f"{path}: no task file of lm-eval can be read ({raised(error, whole=True)[:160]})") from None
    if path in above:
        raise TaskError(f"{path}: includes itself")
    files, merged = [(path, own)], dict[str, Any]()
    included = own.get("include") or []
    for name in included if isinstance(included, list) else [included]:
        told, more = read((path.parent / str(name)).resolve(), (*above, path))
        merged |= {key: value for key, value in told.items() if key != "task_list"}
        files += more
    return merged | {key: value for key, value in own.items() if key != "include"}, files


def check(path: Path, *, packaged: Path, metrics: Container[str]) -> dict[str, Any]:
    """Refuses a task file that runs code which lm-eval has not brought.

    Args:
        path: the file.
        packaged: the folder of lm-eval's own task files, whose functions came with the package.
        metrics: names of the metrics that lm-eval has; others are fetched or read, and run.

    Returns:
        What the file says.

    Raises:
        RequirementError: it does.
    """
    merged, files = read(path)
    found = [(file, what) for file, told in files for what in _code(told, own=file.is_relative_to(packaged))]
    found += [(path, f"metric: {name}, which is none of lm-eval's own") for name in _fetched(merged, metrics)]
    for file, what in found:
        raise RequirementError(
            f"{showable(file)} runs code ({showable(what)}), as a task file may; look at it, and give `trust_code`"
        )
    return merged


def _code(told: Any, *, own: bool) -> Iterator[str]:
    """What in a file runs code, in words; of lm-eval's own files only what models write, or what is fetched."""
    if isinstance(told, Function) and not own:
        yield f"!function {told}"
    elif isinstance(told, list):
        for each in told:
            yield from _code(each, own=own)
    elif isinstance(told, dict):
        if told.get("unsafe_code"):
            yield "unsafe_code: what the model writes is run"
        if told.get("hf_evaluate"):
            yield f"hf_evaluate: {told.get('metric')}"
        place = told.get("dataset_path")
        if isinstance(place, str) and (place.endswith(".py") or place == "pandas"):  # which reads pickles
            yield f"dataset_path: {place}"
        for value in told.values():
            yield from _code(value, own=own)


def _fetched(told: Any, metrics: Container[str]) -> Iterator[str]:
    """The metrics that the library ``evaluate`` would be asked for, which runs what it finds."""
    if isinstance(told, list):
        for each in told:
            yield from _fetched(each, metrics)
    elif isinstance(told, dict):
        listed = told.get("metric_list")
        for each in listed if isinstance(listed, list) and "process_results" not in told else []:
            name = each.get("metric") if isinstance(each, dict) else None
            if isinstance(name, str) and not isinstance(name, Function) and name not in metrics:
                yield name
        for value in told.values():
            yield from _fetched(value, metrics)

"""A model's name with the arguments it is built with: ``timm:vit_tiny_patch16_224(img_size=64)``, or a table."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.errors import TaskError, unknown

SOURCES = ("open_clip", "timm", "torchvision", "transformers", "python")
EXAMPLE = "model = { timm = 'vit_tiny_patch16_224', img_size = 64 }"


def spelled(model: str | Mapping[str, Any]) -> str:
    """A model as text, from either form: a table names its source, and the other keys are arguments.

    Raises:
        TaskError: a table without a source, with two, or with a value that is no number, text, truth or list of them.
    """
    if isinstance(model, str):
        return model
    if not isinstance(model, Mapping):
        raise TaskError(f"a model is a name such as 'timm:resnet18', or a table such as {EXAMPLE}, not {model!r}")
    named = [source for source in SOURCES if source in model]
    if len(named) != 1 or not isinstance(model[named[0]], str) or not model[named[0]]:
        wrong = "names several sources" if len(named) > 1 else "names no source and model"
        raise TaskError(f"the model's table {wrong} ({', '.join(map(str, model)) or 'it is empty'}); write {EXAMPLE}")
    (source,) = named
    arguments = {key: value for key, value in model.items() if key != source}
    return with_arguments(f"{source}:{model[source]}", arguments)


def with_arguments(name: str, arguments: Mapping[str, Any]) -> str:
    """A name and its arguments as one text.

    Raises:
        TaskError: an argument that cannot be written, such as an object.
    """
    for key, value in arguments.items():
        if not isinstance(key, str) or not key.isidentifier() or not _plain(value):
            raise TaskError(f"{name}: argument {key} = {value!r}; arguments are numbers, texts, true, false and lists")
    inside = ", ".join(f"{key}={_listed(value)!r}" for key, value in arguments.items())
    return f"{name}({inside})" if inside else name


def divided(spec: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a model's text.

    Raises:
        TaskError: what stands in the parentheses are no arguments.
    """
    name, opening, rest = _apart(spec)
    if not opening or not rest.endswith(")") or (rest.endswith("()") and "=" not in rest) or "=" not in rest:
        return spec, {}  # a folder may be called so
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise ValueError("write name=value")
        return name, {str(word.arg): _value(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise TaskError(
            f"{spec}: write arguments as {name}(name=value, …); values are numbers, 'texts' or lists"
        ) from None


def _apart(spec: str) -> tuple[str, str, str]:
    """Before the arguments' parenthesis, it, and what follows; a folder that is there keeps its own parentheses."""
    source, _, place = spec.partition(":")
    if source == "transformers":
        ends = [len(place), *(number for number, letter in enumerate(place) if letter == "(")]
        for end in sorted(ends, reverse=True):
            if Path(place[:end]).expanduser().is_dir():
                return f"{source}:{place[:end]}", place[end : end + 1], place[end + 1 :]
    return spec.partition("(")


def allowed(spec: str, arguments: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuses arguments that a source does not take.

    Raises:
        TaskError: there is one; the nearest is named.
    """
    for key in arguments:
        if key not in known:
            raise unknown(f"argument of {spec}:", key, known, error=TaskError)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    return ast.literal_eval(node)


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _listed(value: Any) -> Any:
    """Tuples as lists, so that one value has one spelling."""
    if isinstance(value, list | tuple):
        return [_listed(inner) for inner in value]
    return {key: _listed(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

"""What a checkpoint's own file says of the model besides its tensors: settings that change what the weights compute."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

_MODEL = re.compile(
    r"(.*\.)?(model_args|model_config)\..+|(.*\.)?(arch|model_name|backbone)|"
    r"(.*\.)?(n_?heads?|num_(attention_)?heads|activation\w*|hidden_act|act_layer|act|\w*norm_eps|rope_theta|"
    r"(img|image|input|window|patch)_size|mean|std|interpolation|pool(ing|_type)?)"
)
"""Names of settings that change the computation; rates, seeds and paths of a training program are none."""
_DEEP = 6


def settings_in(content: Any) -> dict[str, Any]:
    """The model's settings in what a training program saved, or in a safetensors file's metadata.

    Returns:
        Dotted name → value, as JSON's values.

    >>> settings_in({"model_args": {"n_head": 12}, "lr": 0.1, "args": argparse.Namespace(act="gelu", seed=3)})
    {'model_args.n_head': 12, 'args.act': 'gelu'}
    """
    return {name: value for name, value in flat(content) if _MODEL.fullmatch(name)}


def flat(content: Any, path: str = "", deep: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields the plain values in what a program saved, and short lists of them, under dotted names."""
    if isinstance(content, argparse.Namespace | types.SimpleNamespace):
        content = vars(content)
    if isinstance(content, Mapping) and deep < _DEEP:
        for key, value in content.items():
            yield from flat(value, f"{path}.{key}" if path else str(key), deep + 1)
    elif isinstance(content, str | int | float | bool):
        yield path, content
    elif (
        isinstance(content, list | tuple)
        and len(content) < 16
        and all(isinstance(v, str | int | float) for v in content)
    ):
        yield path, list(content)

"""From the names that modules have in memory, which adapters use, to those that a base's files use.

Since version 5, transformers calls some modules otherwise in memory than in the files it writes, and an adapter knows
those in memory. Only transformers knows which, so it is asked, where a name is not the base's own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED
from merging.values.partition import TensorInfo


class NamesInFiles:
    """The names of a base's tensors by those that they have in memory.

    Args:
        where: the base, for messages.
        folder: the place of the configuration of the base; None where it has none.
    """

    def __init__(self, where: str, folder: Path | None) -> None:
        self.where, self._folder = where, folder

    def stored(self, name: str, base: Mapping[str, TensorInfo]) -> str:
        """The base's name of a tensor; the name itself where it is the base's own, or nobody knows another."""
        return name if name in base else self._others.get(name, name)

    @functools.cached_property
    def _others(self) -> dict[str, str]:
        try:
            if self._folder is None:
                return {}
            return _of_configuration(self._folder, (self._folder / "config.json").read_bytes())
        except Exception:  # transformers raises whatever a configuration of a stranger provokes; nothing is known then
            return {}


@functools.lru_cache(maxsize=8)
def _of_configuration(folder: Path, content: bytes) -> dict[str, str]:
    """Builds a model without memory from its configuration, and asks for its names in files.

    Raises:
        Exception: whatever transformers raises.
    """
    try:
        said = json.loads(content)
        architecture = str(said["architectures"][0])
        _ = said["model_type"]
    except DAMAGED:
        return {}
    import torch
    import transformers

    kind = getattr(transformers, architecture)
    with torch.device("meta"):
        model = kind(transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
    return names_in_files(model)


def names_in_files(model: Any) -> dict[str, str]:
    """The names that transformers gives a model's tensors when it writes them: name in memory → name in a file.

    A tensor that is joined with others, or cut, is not among them.

    Args:
        model: a model of transformers, perhaps on the meta device.
    """
    import torch

    names = list(model.state_dict())
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5 the names are the same
        return {name: name for name in names}
    numbered = {name: torch.tensor([number], device="cpu") for number, name in enumerate(names)}
    renamed = revert_weight_conversion(model, numbered)
    return {names[int(tensor)]: name for name, tensor in renamed.items() if tensor.numel() == 1}

"""From the names that modules have in memory, which adapters use, to those that a base's files use, and their kinds.

Since version 5, transformers calls some modules otherwise in memory than in the files it writes, and an adapter knows
those in memory. Only transformers knows which, so it is asked, where a name is not the base's own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED
from merging.values.partition import TensorInfo

TRANSPOSED = "Conv1D"
"""The class of layers whose weights are stored with the inputs first."""
_HAVE_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "gptsan-japanese", "clvp")
"""``model_type`` of architectures with such layers."""


@dataclass(frozen=True)
class Modules:
    """The modules of an architecture, as transformers builds it.

    Attributes:
        files: name of a tensor in memory → its name in files.
        kinds: name of a module in memory → name of its class.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


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
        return name if name in base else self.modules.files.get(name, name)

    def transposed(self, module: str, said: bool) -> bool:
        """Whether a module's square weight is stored with the inputs first; what the adapter says, where nobody knows.

        PEFT keeps one answer for all modules, that of the last one. transformers is asked where there can be two.
        """
        if not said and self._model_type not in _HAVE_TRANSPOSED:
            return False
        kind = self.modules.kinds.get(module)
        return said if kind is None else kind == TRANSPOSED

    @functools.cached_property
    def modules(self) -> Modules:
        """The modules that transformers knows of the architecture; none where it does not know it."""
        try:
            content = self._content
            return Modules() if self._folder is None or content is None else _built(self._folder, content)
        except Exception:  # transformers raises whatever a configuration of a stranger provokes; nothing is known then
            return Modules()

    @functools.cached_property
    def _content(self) -> bytes | None:
        try:
            return None if self._folder is None else (self._folder / "config.json").read_bytes()
        except OSError:
            return None

    @functools.cached_property
    def _model_type(self) -> str:
        try:
            return str(json.loads(self._content or b"{}")["model_type"])
        except DAMAGED:
            return ""


@functools.lru_cache(maxsize=8)
def _built(folder: Path, content: bytes) -> Modules:
    """Builds a model without memory from its configuration, and asks for its names in files.

    Raises:
        Exception: whatever transformers raises.
    """
    architecture = str(json.loads(content)["architectures"][0])
    import torch
    import transformers

    kind = getattr(transformers, architecture)
    config = transformers.AutoConfig.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation="eager",  # none of the Hub's kernels, which are code
    )
    with torch.device("meta"):
        model = kind(config)
    return Modules(names_in_files(model), {name: type(part).__name__ for name, part in model.named_modules()})


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

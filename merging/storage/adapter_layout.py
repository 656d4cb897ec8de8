"""Which modules an adapter may update, what they are called, and how PEFT stores their factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.storage.adapter_names import TRANSPOSED, NamesInFiles
from merging.storage.adapter_parts import ENDS, called, module_of
from merging.storage.dtypes import is_floating
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from merging.storage.adapted import AdaptedTensors
    from merging.storage.checkpoint import Checkpoint

LINEAR, CONVOLUTION, EMBEDDING, TURNED = "linear", "convolution", "embedding", "transposed"
_KINDS = {"Linear": LINEAR, "Embedding": EMBEDDING, TRANSPOSED: TURNED}
"""Class of a module → how an update of its weight is stored; other classes have none here."""


@dataclass(frozen=True)
class Place:
    """The module that a tensor's update is stored for: its name in memory, and its kind."""

    module: str
    kind: str


class Layout:
    """The names and kinds of a base's modules, as some adapters of it know them, or transformers, or their shapes.

    Args:
        base: the model that the adapter will stand on.
        adapters: adapters of it whose modules and names are taken over.
    """

    def __init__(self, base: Checkpoint, adapters: Iterable[AdaptedTensors]) -> None:
        self._tensors = base.tensors
        self._known: dict[str, Place] = {}
        self.saved: set[str] = set()
        memory = dict[str, str]()
        for adapter in adapters:
            for name, change in adapter.changes.items():
                if change.first:
                    self._known.setdefault(name, _known(change.first, change.turned, base.tensors[name]))
                elif change.whole:
                    memory[name] = called(change.whole)
                    if not name.endswith(".bias"):
                        self.saved.add(memory[name].rpartition(".")[0])
        names = NamesInFiles(str(base.path), None if base.home.in_memory else base.home.path)
        own = [place.module for place in self._known.values()]
        as_stored = own and all(any(f"{module}.{end}" in base.tensors for end in ENDS) for module in own)
        self._modules = None if as_stored else names.modules
        files = {} if self._modules is None else self._modules.files
        self._memory = {stored: name for name, stored in files.items() if stored in base.tensors} | memory

    def called(self, name: str) -> str:
        """The name in memory of one of the base's tensors."""
        return self._memory.get(name, name)

    def parent(self, name: str) -> str:
        """The name in memory of the module that holds a tensor; empty: the model itself."""
        return self.called(name).rpartition(".")[0]

    def place(self, name: str) -> Place | None:
        """The module that an update of a tensor is stored for; None where PEFT knows no update of it."""
        if name in self._known:
            known = self._known[name]
            return None if name.endswith(".in_proj_weight") or self._is_attentions(name) else known
        if name not in self._tensors:  # of a module that the base does not have
            return None
        shape, dtype = self._tensors[name]
        if not name.endswith(".weight") or len(shape) != 2 or not is_floating(dtype) or self._is_attentions(name):
            return None
        module = self.parent(name)
        kinds: Mapping[str, str] = {} if self._modules is None else self._modules.kinds
        if module in kinds:
            kind = _KINDS.get(kinds[module])
            return None if kind is None else Place(module, kind)
        return None if "emb" in name or "wte" in name or "wpe" in name else Place(module, LINEAR)

    def _is_attentions(self, name: str) -> bool:
        """Whether it is the last layer of torch's attention, whose update PEFT adds twice."""
        return f"{name.removesuffix('out_proj.weight')}in_proj_weight" in self._tensors


def _known(key: str, turned: bool, info: TensorInfo) -> Place:
    module, embedding = module_of(key)
    kind = EMBEDDING if embedding else TURNED if turned else LINEAR if len(info[0]) == 2 else CONVOLUTION
    return Place(module, kind)

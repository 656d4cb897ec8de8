"""A model of transformers under the tensor names of its files.

Since version 5, transformers calls some modules otherwise in memory (``vit.layers.0.attention.q_proj``) than in the
files it writes (``vit.encoder.layer.0.attention.attention.query``), and translates whenever it loads and saves. Pools
and recipes have the names of the files; so must the module they go into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import TaskError
from merging.values.partition import TensorInfo


class StoredNames(nn.Module):
    """A tree with the model's own parts at the places that the files give them; the model itself runs.

    Args:
        model: a model of transformers.
        tensors: tensors of the checkpoints; buffers that older versions stored (``position_ids``) are kept if these
            hold them.

    Raises:
        TaskError: the files hold tensors that are joined or cut on loading; such a model has no such tree.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> None:
        super().__init__()
        for part in model.modules():
            for buffer in list(part._non_persistent_buffers_set):
                if any(name == buffer or name.endswith(f".{buffer}") for name in tensors):
                    part._non_persistent_buffers_set.discard(buffer)
        names = _stored(model)
        # Hidden from nn.Module: registered, it would bring its own names along.
        self._whole = (model,)
        for path, part in list(_parts("", model, names)):
            _place(self, path, part)

    @property
    def whole(self) -> Any:
        """The model that runs; the tree holds the same modules."""
        return self._whole[0]

    def train(self, mode: bool = True) -> StoredNames:
        """Parts without tensors, such as dropout, are in the model alone."""
        super().train(mode)
        self.whole.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StoredNames:
        """What ``.to`` and ``.float`` do: also to buffers of parts that no file knows, which are in the model alone."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        placed = {id(part) for part in self.modules()}
        for part in self.whole.modules():
            if id(part) not in placed:
                part._buffers.update({name: fn(kept) for name, kept in part._buffers.items() if kept is not None})
        return self


def _stored(model: nn.Module) -> dict[str, str]:
    """Name in memory → name in files."""
    names = list(model.state_dict())
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5 the names are the same
        return {name: name for name in names}
    numbered = {name: torch.tensor([number], device="cpu") for number, name in enumerate(names)}
    renamed = revert_weight_conversion(model, numbered)  # type: ignore[arg-type]
    if len(renamed) != len(names) or any(tensor.numel() != 1 for tensor in renamed.values()):
        raise TaskError(
            f"{type(model).__name__}: transformers joins or cuts tensors when it loads such files; bring it as "
            "python:module:function, with checkpoints in the names of that module"
        )
    return {names[int(tensor)]: name for name, tensor in renamed.items()}


def _parts(path: str, part: nn.Module, names: Mapping[str, str]) -> Iterator[tuple[str, nn.Module]]:
    """The largest parts that keep all names below them, with their paths in the files."""
    held = list(part.state_dict())
    if not held:
        return
    places = {_place_of(names[f"{path}{name}"], name) for name in held}
    place = places.pop()
    if not places and place:
        yield place.removesuffix("."), part
        return
    if part._parameters or part._buffers.keys() - part._non_persistent_buffers_set:
        raise TaskError(f"'{path}{held[0]}' of {type(part).__name__} is stored at a place of its own; this is not done")
    for name, child in part.named_children():
        yield from _parts(f"{path}{name}.", child, names)


def _place_of(stored: str, name: str) -> str | None:
    """What stands before a tensor's own name, or None where it is called otherwise."""
    return stored.removesuffix(name) if stored.endswith(name) else None


def _place(tree: nn.Module, path: str, part: nn.Module) -> None:
    *outer, last = path.split(".")
    for name in outer:
        if name not in tree._modules:
            tree.add_module(name, nn.Module())
        tree = tree._modules[name] or tree
    before = tree._modules.get(last)
    for name, child in before.named_children() if before is not None else ():
        part.add_module(name, child)  # files may put parts below one that stands beside them in memory
    tree.add_module(last, part)

"""A model of transformers under the tensor names of its files.

Since version 5, transformers calls some modules otherwise in memory (``vit.layers.0.attention.q_proj``) than in the
files it writes (``vit.encoder.layer.0.attention.attention.query``), and translates whenever it loads and saves. Pools
and recipes have the names of the files; so must the module they go into. Files may also lack a tensor that is tied to
another one, the prefix of the model below the head, or hold buffers that today's modules have no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
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
            hold them. Of tied tensors those are in the tree that these hold. Empty: the first of them.

    Raises:
        TaskError: the files hold tensors that are joined or cut on loading; such a model has no such tree.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> None:
        super().__init__()
        names = _as_in(tensors, _stored(model, tensors), model)
        more = sorted(tensors.keys() - names.values())
        if more:
            _keep_buffers(model, tensors, more)
            names = _as_in(tensors, _stored(model, tensors), model)
        names = _held(model, names, tensors)
        # Hidden from nn.Module: registered, it would bring its own names along.
        self._whole = (model,)
        for path, part in list(_parts("", model, names)):
            _place(self, path, part)
        for name in more:
            if name not in names.values() and any(re.search(pattern, name) for pattern in (*_OLD, *_ignored(model))):
                _keep(self, name, tensors[name])

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


def _stored(model: nn.Module, tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Name in memory → name in files; these may have been written with the names in memory, too."""
    names = list(model.state_dict())
    same = {name: name for name in names}
    if tensors and all(name in tensors for group in tied(model) for name in group[:1]):
        return same
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5 the names are the same
        return same
    numbered = {name: torch.tensor([number], device="cpu") for number, name in enumerate(names)}
    try:
        renamed = revert_weight_conversion(model, numbered)  # type: ignore[arg-type]
    except (IndexError, RuntimeError, ValueError):  # numbers in the place of tensors cannot be cut
        renamed = {}
    if len(renamed) != len(names) or any(tensor.numel() != 1 for tensor in renamed.values()):
        raise TaskError(
            f"{type(model).__name__}: transformers joins or cuts tensors when it loads such files (of experts); write "
            "the models as they are in memory, with save_pretrained(FOLDER, save_original_format=False)"
        )
    return {names[int(tensor)]: name for name, tensor in renamed.items()}


def tied(model: nn.Module) -> list[list[str]]:
    """Gives the names of each tensor in memory: several where it is tied."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


_OLD = (r"rotary_emb\.inv_freq$",)
"""Buffers that older versions stored for every layer, and that transformers passes over when it loads."""


def _ignored(model: nn.Module) -> Iterator[str]:
    """Patterns of the names that transformers passes over when it loads files of this architecture."""
    return iter(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())


def _as_in(tensors: Mapping[str, TensorInfo], names: Mapping[str, str], model: nn.Module) -> dict[str, str]:
    """The names in files that were written from the part below the head (``wte.weight``), where these are such."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    short = {name: stored.removeprefix(prefix) for name, stored in names.items()}
    whole = any(stored in tensors for name, stored in names.items() if short[name] != stored)
    cut = any(stored in tensors for name, stored in short.items() if names[name] != stored)
    return short if cut and not whole else dict(names)


def _held(model: nn.Module, names: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Leaves out the names of tied tensors that the files do not hold."""
    kept = [[name for name in group if names[name] in tensors] or group[:1] for group in tied(model)]
    return {name: names[name] for group in kept for name in group}


def _keep_buffers(model: nn.Module, tensors: Mapping[str, TensorInfo], more: Collection[str]) -> None:
    """Has the model store those of its buffers that the files hold, and that it would store no more."""
    found = [
        (f"{path}.{buffer}".removeprefix("."), part, buffer)
        for path, part in model.named_modules()
        for buffer in sorted(part._non_persistent_buffers_set)
        if any(name == buffer or name.endswith(f".{buffer}") for name in more)
    ]
    for _, part, buffer in found:
        part._non_persistent_buffers_set.discard(buffer)
    names = _as_in(tensors, _stored(model, tensors), model)
    for path, part, buffer in found:
        if names.get(path) not in tensors:
            part._non_persistent_buffers_set.add(buffer)


def _keep(tree: nn.Module, name: str, info: TensorInfo) -> None:
    """Registers a buffer that files hold and nothing reads."""
    *outer, own = name.split(".")
    for part in outer:
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree._modules[part] or tree
    if not hasattr(tree, own):
        tree.register_buffer(own, torch.zeros(info[0], dtype=getattr(torch, info[1])))


def _parts(path: str, part: nn.Module, names: Mapping[str, str]) -> Iterator[tuple[str, nn.Module]]:
    """The largest parts that keep all names below them, with their paths in the files."""
    there = list(part.state_dict())
    held = [name for name in there if f"{path}{name}" in names]
    if not held:
        return
    places = {_place_of(names[f"{path}{name}"], name) for name in held}
    place = places.pop()
    if not places and place and len(held) == len(there):
        yield place.removesuffix("."), part
        return
    own = [name for name in held if "." not in name]
    if own and len(held) < len(there) and len({_place_of(names[f"{path}{name}"], name) for name in own} - {None}) == 1:
        some = nn.Module()  # what is tied to another part's tensor stays away
        for name in own:
            some.register_parameter(name, part._parameters[name])
        yield str(_place_of(names[f"{path}{own[0]}"], own[0])).removesuffix("."), some
    elif own:
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

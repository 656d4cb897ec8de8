"""Names of tensors without what wrappers of a module add to them: compiled, data-parallel, sharded, averaged."""

from __future__ import annotations

import re
from collections.abc import Iterable

from merging.errors import CheckpointError

ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module")
"""Parts of a name that torch.compile, FSDP and activation checkpoints add, at whatever depth a part was wrapped."""
PREFIXES = ("module.", "_module.", "_forward_module.")
"""Prefixes that DataParallel and SWA, Opacus, and Lightning Fabric put before every name."""
LIGHTNING = "model."
"""Prefix that the usual LightningModule puts before every name; elsewhere such names are the model's own."""
COUNTERS = ("n_averaged", "steps")
"""Names of counters, of the models or steps that an average of torch or mmengine has seen; no part of the model."""
EXTRA = "_extra_state"
"""Name of what TransformerEngine and others keep beside a module's tensors for themselves."""
_INSIDE = re.compile(rf"(^|\.)(?:{'|'.join(ANYWHERE)})\.")


def unwrapped(keys: Iterable[str], where: str, *, lightning: bool = False) -> tuple[dict[str, str], tuple[str, ...]]:
    """Finds the names under which a state dict's tensors are known.

    Args:
        keys: the names as they are stored.
        where: the file, for errors.
        lightning: whether Lightning wrote it.

    Returns:
        Name → key as stored, in that order, and notes: each wrapper once.

    Raises:
        CheckpointError: two keys would have one name.
    """
    names, notes = {key: key for key in keys}, list[str]()
    for part in ANYWHERE:
        if any(f".{part}." in f".{name}" for name in names):
            notes.append(f"'{part}.' taken out of names")
    names = _renamed(names, {name: _without(name) for name in names}, where)
    extra = [name for name in names if name.rpartition(".")[2] == EXTRA]
    if extra and len(extra) < len(names):
        names = {name: key for name, key in names.items() if name not in extra}
        notes.append(f"{len(extra)} '{EXTRA}' left out: a module's own, and no weights")
    counters = [name for name in COUNTERS if name in names]
    if counters and len(names) > 1 and all(n in counters or n.startswith("module.") for n in names):
        names = {name: key for name, key in names.items() if name not in counters}
        notes.append(f"'{counters[0]}' of an averaged model left out")
    prefixes = [*PREFIXES, LIGHTNING] if lightning else [*PREFIXES]
    while names and (prefix := next((p for p in prefixes if all(n.startswith(p) for n in names)), None)):
        names = _renamed(names, {name: name.removeprefix(prefix) for name in names}, where)
        notes.append(f"prefix '{prefix}' removed")
        if prefix == LIGHTNING:  # once: below it such a name is the model's own
            prefixes.remove(LIGHTNING)
    return names, tuple(dict.fromkeys(notes))


def _without(name: str) -> str:
    while (shorter := _INSIDE.sub(r"\1", name)) != name:
        name = shorter
    return name


def _renamed(names: dict[str, str], new: dict[str, str], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in names.items():
        if new[name] in found or not new[name]:
            raise CheckpointError(
                f"{where}: '{key}' and '{found.get(new[name], key)}' are one tensor, '{new[name]}', once wrappers are "
                "taken out of their names; save model.state_dict() of the unwrapped model"
            )
        found[new[name]] = key
    return found

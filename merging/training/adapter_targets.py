"""Which layers of a model adapters update, and how large a rank these can have."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from merging.errors import OptionError, RequirementError, nearest
from merging.training.hyperparameters import LoraParameters
from merging.values.wording import some

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AUTO, ALL_LINEAR = "auto", "all-linear"


def targets(module: nn.Module, settings: LoraParameters, head: Iterable[str]) -> tuple[str, ...]:
    """Names of the layers that a run's adapter updates, in the module's order.

    Args:
        module: the model, as it is in memory.
        settings: hyper-parameters of the run.
        head: names of the modules that are trained whole, and not adapted.

    Raises:
        OptionError: a pattern names no layer, or one that cannot be adapted, or the rank is more than a layer can have.
        RequirementError: the model has no layers that are adapted by themselves.
    """
    whole = set(head)
    layers = {name: layer for name, layer in _layers(module).items() if name not in whole}
    found = list(layers) if settings.target_modules == AUTO else _matched(module, settings.target_modules, layers)
    if settings.target_modules == AUTO:
        linear = [name for name, layer in layers.items() if _is_linear(layer)]
        convolutions = [name for name, layer in layers.items() if isinstance(layer, CONVOLUTIONS)]
        found = sorted({*linear, *(convolutions if len(convolutions) > len(linear) else ())}, key=found.index)
        if not found:
            raise RequirementError(
                f"{type(module).__name__} has no linear layers or convolutions besides its head, so that there is "
                "nothing to adapt; leave `adapter` out"
            )
    for name in found:
        most = largest_rank(layers[name])
        if settings.rank > most:
            least = min(largest_rank(layers[each]) for each in found)
            raise OptionError(
                f"`rank` {settings.rank} is more than the update of '{name}' can have ({most}); give at most {least}, "
                "or name larger layers with `target_modules`"
            )
    return tuple(found)


def largest_rank(layer: nn.Module) -> int:
    """The largest rank that an update of a layer's weight can have: the smaller one of its two sides."""
    weight = layer.weight
    shape = weight.shape if isinstance(weight, Tensor) else ()
    return min(shape[0], math.prod(shape[1:])) if shape else 0


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that may be adapted, by name."""
    return {name: part for name, part in module.named_modules() if not _refused(module, name, part)}


def _refused(module: nn.Module, name: str, part: nn.Module) -> str:
    """Says why a module cannot be adapted; empty where it can."""
    parent = module.get_submodule(name.rpartition(".")[0]) if name else None
    if isinstance(part, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention):
        return (
            "is torch's MultiheadAttention, into whose weights PEFT puts its update and takes it out again at every "
            "step; name linear layers"
        )
    if isinstance(part, CONVOLUTIONS):
        return "is a convolution in groups, whose update PEFT cannot merge" if part.groups > 1 else ""
    known = _is_linear(part) or isinstance(part, nn.Embedding)
    return "" if known else f"is {type(part).__name__}, no linear layer, convolution or embedding"


def _is_linear(part: nn.Module) -> bool:
    """Whether a module is a linear layer of torch, or that of GPT-2, whose inputs come first."""
    return isinstance(part, nn.Linear) or (type(part).__name__ == "Conv1D" and hasattr(part, "nf"))


def _matched(module: nn.Module, patterns: str, layers: Mapping[str, nn.Module]) -> list[str]:
    """The layers that patterns name, in the module's order.

    Raises:
        OptionError: one names none.
    """
    found = set[str]()
    for pattern in (text.strip() for text in patterns.split(",")):
        if pattern == ALL_LINEAR:
            named = [name for name, layer in layers.items() if _is_linear(layer)]
        else:
            named = [name for name in layers if _fits(name, pattern)]
        if not named:
            raise OptionError(f"`target_modules` '{pattern}' {_why_none(module, pattern, layers)}")
        found.update(named)
    return [name for name in layers if name in found]


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or name.endswith(f".{pattern}") or ("*" in pattern and fnmatch.fnmatchcase(name, pattern))


def _why_none(module: nn.Module, pattern: str, layers: Mapping[str, nn.Module]) -> str:
    """Says what a pattern that names no layer does name, or the nearest names."""
    others = [(name, part) for name, part in module.named_modules() if name and _fits(name, pattern)]
    if others and pattern != ALL_LINEAR:
        name, part = others[0]
        if why := _refused(module, name, part):
            return why
        return "is the head, which is trained whole"
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in layers if not name.rpartition(".")[2].isdecimal()))
    near = nearest(pattern, [*layers, *ends])
    known = ends or list(layers)
    return f"names no layer; did you mean '{near}'?" if near else f"names no layer; there are {some(known, 8)}"

"""The values of all parameters, tensor by tensor, as mergekit finds them, and the groups in which they are the same."""

from __future__ import annotations

from functools import cached_property

from merging.errors import MergingError
from merging.mergekit.configuration import Configuration, Slice
from merging.mergekit.methods import REQUIRED
from merging.mergekit.models import Models
from merging.mergekit.reference import Reference
from merging.mergekit.setting import Value
from merging.mergekit.varying import Group, Tensor, groups, located
from merging.mixing.blocks import blocks


class Values:
    """All parameters of a configuration, for the tensors of its models.

    Args:
        found: the configuration.
        models: its models.

    Raises:
        MergingError: slices that do not cover the models' layers, each once and in order.
    """

    def __init__(self, found: Configuration, models: Models) -> None:
        self._found, self._models = found, models
        self._tensors = located(models.tensors)
        self._ends = self._checked_ends()

    @cached_property
    def _last(self) -> frozenset[str]:
        """Tensors behind the last layer, where there are several slices."""
        return frozenset(blocks(self._models.tensors).get("head", ()) if len(self._found.slices) > 1 else ())

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Groups of tensors for which all parameters have the same values: one, where nothing varies.

        Raises:
            MergingError: a model lacks a value that it must have.
        """
        filters = {text for _, setting in self._found.settings for text in setting.filters}
        return groups(self._tensors, filters, self._all)

    def shared(self, name: str) -> list[Value]:
        """The values of a parameter of the whole merge, one a group."""
        return [self._value(name, group.tensor, None) for group in self.groups]

    def own(self, name: str) -> dict[Reference, list[Value]]:
        """Each model's values of a parameter, one a group; models in the pool's order."""
        return {
            model: [self._value(name, group.tensor, model) for group in self.groups] for model in self._models.names
        }

    def said(self, name: str) -> str:
        """The first place where a parameter is set: file, line and path."""
        places = (setting.said.where for each, setting in self._found.settings if each == name)
        return next(places, self._found.document.where)

    def _all(self, tensor: Tensor) -> tuple[Value, ...]:
        """The values of all parameters that mean something, for one tensor."""
        known = self._found.method.parameters
        return tuple(
            self._value(name, tensor, model)
            for name, parameter in known.items()
            if not parameter.inert
            for model in (self._models.names if parameter.per_model else (None,))
        )

    def _value(self, name: str, tensor: Tensor, model: Reference | None) -> Value:
        part, depth = self._place(tensor)
        for scope in self._found.scopes(part, model):
            if name in scope and (value := scope[name].of(tensor.name, depth)) is not None:
                return value
        default: Value = self._found.method.parameters[name].default
        if default is REQUIRED:
            raise self._lost(name, part, tensor, model)
        return default

    def _lost(self, name: str, part: Slice, tensor: Tensor, model: Reference | None) -> MergingError:
        """The error where nothing gives a value that must be there."""
        known = [scope[name] for scope in self._found.scopes(part, model) if name in scope]
        if known:
            return known[0].said.wrong(
                f"gives no value for tensor '{tensor.name}'; end the list with one without filter"
            )
        entry = next((entry.said for entry in part.entries if entry.model == model), None)
        said = entry or (self._found.document if model is None else self._found.document["base_model"])
        return said.wrong(f"has no parameter '{name}', and '{self._found.name}' needs one")

    def _place(self, tensor: Tensor) -> tuple[Slice, float]:
        """The slice that a tensor is in, and its depth there."""
        parts = self._found.slices
        if not tensor.layers:  # what follows the last layer belongs to the last slice, and has its first layer's values
            return parts[-1 if tensor.name in self._last else 0], 0.0
        if len(parts) == 1:
            return parts[0], _depth(tensor.layer, tensor.layers)
        start = 0
        for part, end in zip(parts, self._ends, strict=True):
            if tensor.layer < end:
                return part, _depth(tensor.layer - start, end - start)
            start = end
        raise MergingError(f"{parts[-1].said.where} ends at layer {start}, and '{tensor.name}' is of a later one")

    def _checked_ends(self) -> list[int]:
        """Where slices end."""
        ends, start = list[int](), 0
        modules = {tensor.module: tensor.layers for tensor in self._tensors if tensor.layers}
        for part in self._found.slices:
            for entry in part.entries:
                if entry.layers is None:
                    continue
                said = entry.said["layer_range"]
                if len(modules) != 1:
                    raise said.wrong(
                        f"is for models whose layers are one sequence, and here are {len(modules)}; write 'models'"
                    )
                if entry.layers[0] != start or entry.layers != part.entries[0].layers:
                    raise said.wrong(
                        f"is {list(entry.layers)}, and the layers of all models are merged in their order here, from "
                        f"{start}; other slices come later"
                    )
            if part.entries[0].layers is not None:
                start = part.entries[0].layers[1]
                ends.append(start)
        (count,) = modules.values() if ends else (0,)
        if ends and start != count:
            raise self._found.slices[-1].said.wrong(
                f"ends at layer {start}, and the models have {count}; other slices than all layers come later"
            )
        return ends


def _depth(place: int, count: int) -> float:
    return place / (count - 1) if count > 1 else 1.0

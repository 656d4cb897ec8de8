"""A user's own architecture, ``python:module:factory``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import TaskError
from merging.models.source import ModelSource
from merging.plugins.user_code import called, import_object

if TYPE_CHECKING:
    from torch import nn

    from merging.storage.pool import ModelPool
    from merging.values.partition import TensorInfo


class Python(ModelSource):
    """A user's own architecture, ``python:module:factory``, whatever its tensors are called."""

    def __init__(self, spec: str, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(spec, arguments)
        factory = import_object(spec)
        self._factory = functools.partial(factory, **arguments) if arguments else factory

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Calls the factory; it alone knows the number of classes."""
        del tensors
        if classes is not None:
            raise TaskError(f"{self.spec} decides itself how many classes it has; leave `classes` out")
        from torch import nn

        return called(f"'{self.spec}'", self._factory, nn.Module, "an nn.Module", error=TaskError)

    def build(self, pool: ModelPool) -> nn.Module:
        """Calls the factory, which needs no pool."""
        del pool
        return self.module()

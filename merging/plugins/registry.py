"""Names for plug-ins: one registry a kind, a decorator to enter it, a clear refusal of a taken name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from merging.errors import NameTakenError, unknown
from merging.plugins.options import Declared, check_fields

if TYPE_CHECKING:
    from merging.plugins.objective import Objective
    from merging.plugins.optimizer import Optimizer
    from merging.plugins.partitioner import Partitioner
    from merging.plugins.strategy import MixStrategy
    from merging.plugins.task import Task

T = TypeVar("T", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Name → plug-in class of one kind.

    Args:
        kind: the field's word for one entry, e.g. ``"strategy"``.
        group: the entry-point group through which installed packages add theirs, e.g. ``"merging.strategies"``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._classes: dict[str, T] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator that enters a plug-in under ``name`` and gives it back as the type that it is.

        Whether it is of this kind is looked at by the contract tests.

        Raises:
            NameTakenError: another class has that name; nothing is overwritten.
            OptionError: a field of the class is no option.
        """

        def enter(plugin: C) -> C:
            other = self._classes.get(name)
            if other is not None and other is not plugin:
                raise NameTakenError(
                    f"the {self.kind} '{name}' of {_origin(plugin)} is already registered by {_origin(other)}; "
                    "give one of them another name"
                )
            if "__dataclass_fields__" in vars(plugin) and issubclass(plugin, Declared):
                check_fields(plugin)
            plugin.name = name  # type: ignore[attr-defined]
            self._classes[name] = plugin  # type: ignore[assignment]  # of this kind: the contracts look
            return plugin

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._classes:
            raise unknown(self.kind, name, self._classes, "see: merge list")
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __len__(self) -> int:
        return len(self._classes)


class TaskRegistry(Registry[T]):
    """A registry of functions."""

    def register(self, name: str) -> Callable[[F], F]:
        """As :meth:`Registry.register`, for a function."""
        return super().register(name)  # type: ignore[return-value]


def _origin(plugin: Any) -> str:
    return f"{plugin.__module__}.{plugin.__qualname__}"


strategies: Registry[type[MixStrategy]] = Registry("strategy", "merging.strategies")
partitioners: Registry[type[Partitioner]] = Registry("partitioner", "merging.partitioners")
optimizers: Registry[type[Optimizer]] = Registry("optimizer", "merging.optimizers")
objectives: Registry[type[Objective]] = Registry("objective", "merging.objectives")

KINDS: dict[str, Registry[Any]] = {
    "strategy": strategies,
    "partitioner": partitioners,
    "optimizer": optimizers,
    "objective": objectives,
}
"""What a merge is composed of."""

PLUGINS: dict[str, Registry[Any]] = dict(KINDS)
"""Every kind of plug-in with declared options: those of a merge, and (once :mod:`merging.training.regime` is loaded)
how pools are trained."""

tasks: TaskRegistry[Callable[..., Task]] = TaskRegistry("task", "merging.tasks")

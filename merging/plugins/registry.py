"""Names for plug-ins: one registry a kind, a decorator to enter it, a clear refusal of a taken name."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from merging.errors import MergingError, NameTakenError, OptionError, unknown
from merging.plugins.options import Declared, Plugin, check_fields
from merging.plugins.profiles import Profile
from merging.plugins.user_code import article

if TYPE_CHECKING:
    from merging.data.form import DataForm
    from merging.models.source import ModelSource
    from merging.plugins.objective import Objective
    from merging.plugins.optimizer import Optimizer
    from merging.plugins.partitioner import Partitioner
    from merging.plugins.sink import Sink
    from merging.plugins.strategy import MixStrategy
    from merging.plugins.task import Task
    from merging.training.regime import Regime

T = TypeVar("T", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

STATED = ("summary", "formula", "limits", "paper")
"""Facts that a plug-in states about itself: a class by attributes of these names, a function where it is registered."""
_RESERVED = frozenset(" :=,()[]{}/\\'\"")
"""Characters that mean something where a plug-in's name is written: flags, tables, paths."""


class Registry(Generic[T]):
    """Name → plug-in of one kind.

    Args:
        kind: the field's word for one entry, e.g. ``"strategy"``.
        group: the entry-point group through which installed packages add theirs, e.g. ``"merging.strategies"``.
        interfaces: bases of its classes, one of which each needs, as ``"module:name"`` (some lie higher than this
            module); none: only functions are entered.

    Attributes:
        kind: word for one entry.
        group: entry-point group of its plug-ins.
        interfaces: bases of its classes, one of which each needs.
    """

    functions = False
    """Whether a function may be entered."""

    def __init__(self, kind: str, group: str, *interfaces: str) -> None:
        self.kind = kind
        self.group = group
        self.interfaces = interfaces
        self._classes: dict[str, T] = {}
        self._runs: dict[str, object] = {}

    def register(self, name: str, **stated: Any) -> Callable[[C], C]:
        """Decorator that enters a plug-in under ``name`` and gives it back as the type that it is.

        A file that is run twice (given with ``--plugin``, and imported by another one; reloaded as a module) enters its
        plug-ins anew, and so does the cell of a notebook.

        Args:
            name: letters, digits, hyphens; nothing that means something else where it is written.
            stated: ``summary``, ``paper``, ``limits``, ``formula`` and ``tiny`` of a function, which has no class
                attributes, and ``sets`` of a task, the names of what it scores; without a summary, the first line of
                its docstring is one.

        Raises:
            NameTakenError: another plug-in has that name; nothing is overwritten.
            MergingError: no name, an odd one, or an object of another kind.
            OptionError: a field of the class is no option.
        """
        self._check_name(name)

        def enter(plugin: C) -> C:
            self._check(plugin, name)
            names = _names(plugin)
            for each in names:
                self._check_name(each)
            run = getattr(sys.modules.get(plugin.__module__), "__spec__", None)  # a reloaded module has another one
            for each in (name, *names):
                self._check_free(each, plugin, run)
            if name in names:
                raise NameTakenError(
                    f"the {self.kind} '{name}' of {_origin(plugin)} has a profile of that name as well"
                )
            if isinstance(plugin, type) and "__dataclass_fields__" in vars(plugin) and issubclass(plugin, Declared):
                check_fields(plugin)
            first = inspect.cleandoc(plugin.__doc__ or "").partition("\n")[0].rstrip(".")
            defaults = {"summary": "" if isinstance(plugin, type) else first, **dict.fromkeys(STATED[1:], "")}
            missing = {key: value for key, value in defaults.items() if not hasattr(plugin, key)}
            for key, value in {**missing, **stated, "name": name}.items():
                setattr(plugin, key, value)
            bound = {each: profile.bound(plugin, each) for each, profile in names.items()}
            for lost in [old for old, known in self._classes.items() if _of(known) is _of(self._classes.get(name))]:
                del self._classes[lost]  # entered anew, perhaps with fewer names
            for each, entered in {name: plugin, **bound}.items():
                self._classes[each] = entered  # type: ignore[assignment]  # of this kind: it was looked at
                self._runs[each] = run
            return plugin

        return enter

    def _check_name(self, name: object) -> None:
        """Refuses what cannot be typed as a name.

        Raises:
            MergingError: it is none.
        """
        if not isinstance(name, str) or not name[:1].isalnum() or not name.isprintable() or set(name) & _RESERVED:
            said = repr(name) if isinstance(name, str) else f"a {type(name).__name__}"
            raise MergingError(
                f"{said} is no name for {article(self.kind)}: letters, digits and hyphens are, as in register('mine')"
            )

    def _check_free(self, name: str, plugin: Any, run: object) -> None:
        """Refuses a name that another plug-in has; a definition that is run again keeps its own.

        Raises:
            NameTakenError: it is taken.
        """
        other = self._classes.get(name)
        if other is not None and not _same(_of(other), plugin, reloaded=run is not self._runs[name]):
            whose, taken = _origin(plugin), _origin(other)
            again = "registered twice there" if whose == taken else f"already registered by {taken}"
            raise NameTakenError(f"the {self.kind} '{name}' of {whose} is {again}; give one of them another name")

    def _check(self, plugin: object, name: str) -> None:
        """Refuses what is no plug-in of this kind.

        Raises:
            MergingError: it is none.
        """
        wanted = "a function" if self.functions else "a class"
        if self.interfaces:
            wanted = f"{wanted}, or a class derived from" if self.functions else "a class derived from"
            wanted += f" {' or '.join(each.rpartition(':')[2] for each in self.interfaces)}"
        if not isinstance(plugin, type):
            fits = self.functions and callable(plugin)
        elif not self.interfaces:
            fits = not self.functions
        else:
            fits = issubclass(plugin, tuple(map(pkgutil.resolve_name, self.interfaces)))
        if not fits:
            said = f"the class {plugin.__name__}" if isinstance(plugin, type) else f"of type {type(plugin).__name__}"
            raise MergingError(f"'{name}' is no {self.kind}: it is {said}, and {wanted} is needed")

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


class FunctionRegistry(Registry[T]):
    """A registry of functions, and of classes where it has an interface."""

    functions = True

    def register(self, name: str, **stated: Any) -> Callable[[F], F]:
        """Decorator that enters a function, or a class that has the interface, under ``name`` and gives it back.

        Arguments and errors are those of :meth:`Registry.register`; a function keeps its own type.
        """
        return super().register(name, **stated)  # type: ignore[return-value]


def _names(plugin: object) -> dict[str, Profile]:
    """The profiles that a class has names for; those of a class that it derives from are that one's.

    Raises:
        OptionError: they are no profiles by their names.
    """
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        return {}
    named: object = vars(plugin).get("named_profiles", {})
    if isinstance(named, Mapping) and all(isinstance(each, Profile) for each in named.values()):
        return dict(named)
    raise OptionError(
        f"named_profiles of {plugin.__qualname__} must map names to profiles, as in {{'mine': merging.Profile()}}"
    )


def _of(entry: Any) -> Any:
    """The class or function behind an entry."""
    return entry.plugin if isinstance(entry, Profile) else entry


def _origin(plugin: Any) -> str:
    return f"{plugin.__module__}.{getattr(plugin, '__qualname__', plugin.__class__.__qualname__)}"


def _same(one: Any, other: Any, *, reloaded: bool) -> bool:
    """Whether two objects are one definition: one object, or of a file that was run twice, or of a cell."""
    if one is other:
        return True
    if getattr(one, "__qualname__", None) != getattr(other, "__qualname__", None):
        return False
    if one.__module__ == other.__module__:
        return reloaded or not hasattr(sys.modules.get(one.__module__), "__file__")
    try:
        return os.path.samefile(inspect.getfile(one), inspect.getfile(other))
    except (TypeError, OSError):  # defined in no file
        return False


strategies: Registry[type[MixStrategy]] = Registry(
    "strategy", "merging.strategies", "merging.plugins.strategy:MixStrategy"
)
partitioners: Registry[type[Partitioner]] = Registry(
    "partitioner", "merging.partitioners", "merging.plugins.partitioner:Partitioner"
)
optimizers: Registry[type[Optimizer]] = Registry(
    "optimizer", "merging.optimizers", "merging.plugins.optimizer:Optimizer"
)
objectives: Registry[type[Objective]] = Registry(
    "objective",
    "merging.objectives",
    "merging.plugins.objective:Objective",
    "merging.plugins.whole_model_objective:WholeModelObjective",
)
regimes: Registry[type[Regime]] = Registry("regime", "merging.regimes", "merging.training.regime:Regime")
tasks: FunctionRegistry[Callable[..., Task]] = FunctionRegistry("task", "merging.tasks")
models: FunctionRegistry[Callable[..., ModelSource]] = FunctionRegistry(
    "model", "merging.models", "merging.models.source:ModelSource"
)
forms: Registry[type[DataForm]] = Registry("form", "merging.forms", "merging.data.form:DataForm")
sinks: Registry[type[Sink]] = Registry("sink", "merging.sinks", "merging.plugins.sink:Sink")

KINDS: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (strategies, partitioners, optimizers, objectives)
}
"""Kind → registry, of the four kinds of plug-ins that a merge is composed of."""

PLUGINS: dict[str, Registry[Any]] = KINDS | {
    registry.kind: registry for registry in (regimes, tasks, models, forms, sinks)
}
"""Every kind that a person may add."""

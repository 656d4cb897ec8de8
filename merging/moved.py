"""Old import paths of what moved, and values made by position: both work for one release, with a warning.

docs/moved.md is written from these tables.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

MODULES = {
    "arithmetic": "mixing.arithmetic",
    "benchmarking.documents": "benchmarking.rendering.documents",
    "benchmarking.drawing": "drawing",
    "benchmarking.page": "benchmarking.rendering.page",
    "benchmarking.pictures": "benchmarking.rendering.pictures",
    "benchmarking.rendering": "benchmarking.rendering.forms",
    "benchmarking.rendering.drawing": "drawing",
    "benchmarking.statistics": "values.statistics",
    "benchmarking.tables": "benchmarking.rendering.tables",
    "blend": "forward.blend",
    "calibration": "forward.calibration",
    "card": "running.card",
    "check": "looking.check",
    "checkpoint": "storage.checkpoint",
    "cli.benchmark_view": "cli.showing.benchmark_view",
    "cli.options": "cli.asking.options",
    "cli.request": "cli.asking.request",
    "cli.resolve": "cli.asking.resolve",
    "cli.scatter": "cli.showing.scatter",
    "cli.table": "cli.showing.table",
    "cli.terminal": "cli.showing.terminal",
    "computed": "mixing.computed",
    "data.labels": "values.labels",
    "discovery": "plugins.discovery",
    "dtypes": "storage.dtypes",
    "estimate": "looking.estimate",
    "evaluator": "evaluation.evaluator",
    "feed": "forward.feed",
    "fisher": "forward.fisher",
    "geometry": "looking.geometry",
    "inspection": "looking.inspection",
    "interfaces": "plugins.strategy",
    "interpolation": "looking.interpolation",
    "journal": "storage.journal",
    "live": "forward.live",
    "numerics": "forward.numerics",
    "options": "plugins.options",
    "outcome": "values.outcome",
    "output": "storage.folder",
    "partition": "values.partition",
    "passes": "forward.passes",
    "placement": "forward.placement",
    "plan": "running.plan",
    "pool": "storage.pool",
    "problem": "running.problem",
    "progress": "plugins.progress",
    "published": "benchmarking.published",
    "raw": "storage.raw",
    "recalibration": "forward.recalibration",
    "recipe": "values.recipe",
    "registry": "plugins.registry",
    "report": "values.report",
    "run": "running.run",
    "scoring": "looking.scoring",
    "search": "running.search",
    "shards": "storage.shards",
    "splits": "looking.sets",
    "stages": "forward.stages",
    "streaming": "mixing.streaming",
    "strip": "looking.samples",
    "task": "plugins.task",
    "tasks.cache": "data.cache",
    "tasks.classes": "data.classes",
    "tasks.damage": "data.damage",
    "tasks.data": "data.opening",
    "tasks.drawing": "data.parts",
    "tasks.folders": "data.folders",
    "tasks.forms": "data.reader",
    "tasks.npz": "data.npz",
    "tasks.pictures": "data.pictures",
    "tasks.saved": "data.saved",
    "tasks.tables": "data.tables",
    "tasks.tars": "data.tars",
    "tasks.text": "data.text",
    "tuning": "forward.tuning",
    "writing": "mixing.writing",
}
"""Old module → new one, both within ``merging``."""

NAMES = {
    "checkpoint": {
        "storage.content": "content_hash digest_head",
        "storage.model_folder": "COMPANIONS is_model_folder",
        "storage.file_kind": "SUFFIXES",
        "storage.raw": "has_only_finite",
        "storage.unpickling": "OLD_MAGIC",
    },
    "cli.request": {
        "cli.asking.outputs": "output_folder",
        "cli.asking.plugin_options": "flatten_options parse_options",
        "cli.asking.tables": "File ModelTable PoolTable RunTable TOML read_toml",
        "tasks.table": "DataTable TaskTable",
    },
    "cli.run": {
        "cli.asking.request": "requested",
        "cli.asking.signals": "process_start stop_on_signal",
    },
    "data.forms": {
        "data.images": "is_images",
        "data.opened": "Opened",
        "data.reader": "Reader UNLABELLED",
    },
    "estimate": {
        "running.rehearsal": "REHEARSAL rehearse",
    },
    "evaluator": {
        "evaluation.outputs": "LOGITS_MEMORY",
    },
    "interfaces": {
        "plugins.objective": "Objective",
        "plugins.optimizer": "Optimizer Search Vector",
        "plugins.partitioner": "Partitioner",
        "plugins.problem": "Problem",
        "plugins.progress": "Progress",
        "plugins.searches": "Path",
        "plugins.slopes": "Blend",
        "plugins.whole_model_objective": "SplitView WholeModelObjective",
        "values.outcome": "Decision Outcome Solution",
        "values.partition": "Partition TensorInfo",
        "values.recipe": "Ingredient Merge Recipe Weights",
    },
    "live": {
        "forward.fitting": "check_fits untouched",
    },
    "models.catalogue": {
        "models.own": "Python",
        "plugins.user_code": "import_object",
    },
    "models.zero_shot": {
        "models.linear_start": "linear_start",
    },
    "objectives.accuracy": {
        "values.outcome": "top1",
    },
    "outcome": {
        "values.statistics": "Paired compare mcnemar",
    },
    "plugins.objective": {
        "plugins.whole_model_objective": "SplitView",
    },
    "plugins.problem": {
        "plugins.searches": "Path",
        "plugins.slopes": "Blend",
    },
    "output": {
        "storage.result": "CARD ENSEMBLE MEMBERS MODELS OVERRIDES RECIPE REPORT "
        "carry read_ensemble read_recipe save_model write_beside write_ensemble",
    },
    "pool": {
        "storage.sources": "expand natural_key short_names",
    },
    "placement": {
        "forward.fitting": "probe",
    },
    "plan": {
        "running.needs": "check_needs",
    },
    "published": {
        "running.notes": "RELEASE",
    },
    "registry": {
        "training.regime": "regimes",
    },
    "run": {
        "running.baselines": "BASELINES",
    },
    "splits": {
        "running.leaks": "Shared digests leaks sets_of",
    },
    "tasks.catalogue": {
        "plugins.registry": "tasks",
    },
    "tasks.forms": {
        "data.images": "is_images",
        "data.opened": "Opened",
    },
    "tasks.npz": {
        "data.images": "Normalise",
    },
    "tasks.pictures": {
        "data.images": "Preparation preparation",
    },
    "testing.optimizers": {
        "testing.fixtures": "Bowl StrictSearch box",
    },
    "testing.strategies": {
        "testing.fixtures": "content_of merge_tiny",
    },
}
"""Old module → new module → names that went there by themselves."""

RENAMED = {"training.regimes.swa": {"Swa": "SwaRegime"}}
"""Module → old name → new one: two public classes cannot have one name."""


MEMBERS = {
    "problem": {
        "scores": "exceeds labels logits score splits",
        "search": "between maximize",
        "slopes": "batches blend gradient live squared_gradients",
    }
}
"""An object that a plug-in is given → the part of it → members of the object that stand behind that part now."""

GONE = {"problem.gradient": "problem.slopes.blend(rows).gradient(coefficients, batch)"}
"""Members whose work another one does, which the warning names."""


def home(module: str, name: str) -> str:
    """Finds the module that a name of an old module is in now, as an absolute module name.

    >>> home("merging.interfaces", "Optimizer"), home("merging.pool", "ModelPool")
    ('merging.plugins.optimizer', 'merging.storage.pool')
    """
    old = module.removeprefix("merging.")
    alone = (new for new, names in NAMES.get(old, {}).items() if name in names.split())
    return f"merging.{next(alone, MODULES.get(old, old))}"


def old_name(module: str, name: str) -> Any:
    """A name under its old module, with a warning.

    Raises:
        AttributeError: it never was there.
    """
    new, old = home(module, name), module.removeprefix("merging.")
    called = RENAMED.get(old, {}).get(name, name)
    if name == "__all__" and old in MODULES:  # of a star import
        return sorted({*_public(new), *(each for names in NAMES.get(old, {}).values() for each in names.split())})
    if name.startswith("__") or (new == module and called == name):
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    value = getattr(importlib.import_module(new), called)
    warnings.warn(
        f"{module}.{name} has moved: import {called} from {new} (the old path works in this release only)",
        FutureWarning,
        stacklevel=2,
    )
    return value


def part_of(thing: str, member: str) -> str:
    """The part of an object behind which one of its members stands now, with a warning that says so.

    Raises:
        AttributeError: the object never had such a member.
    """
    part = next((part for part, members in MEMBERS[thing].items() if member in members.split()), None)
    if part is None:
        raise AttributeError(f"{thing} has no attribute '{member}'")
    old = f"{thing}.{member}"
    warnings.warn(
        f"{old} has moved: write {GONE.get(old, f'{thing}.{part}.{member}')} (the old name works in this release only)",
        FutureWarning,
        stacklevel=3,
    )
    return part


def _public(module: str) -> list[str]:
    loaded = importlib.import_module(module)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", module) == module]
    return list(getattr(loaded, "__all__", [name for name in own if not name.startswith("_")]))


def forwarding(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module from which names have moved."""
    return functools.partial(old_name, module)


def by_position(made: type[T]) -> type[T]:
    """Lets a dataclass whose fields are keywords be made by position, too, with a warning that names the fields."""
    keywords: Callable[..., None] = made.__init__
    names = [field.name for field in dataclasses.fields(made) if field.init]  # type: ignore[arg-type]

    @functools.wraps(keywords)
    def either(self: T, *values: Any, **named: Any) -> None:
        if len(values) > len(names):
            raise TypeError(f"{made.__name__} has {len(names)} fields, and {len(values)} values were given")
        if values:
            said = ", ".join(f"{name}=…" for name in names[: len(values)])
            warnings.warn(
                f"{made.__name__} takes its fields by name: {made.__name__}({said}) (by position works in this "
                "release only)",
                FutureWarning,
                stacklevel=2,
            )
        keywords(self, **dict(zip(names, values, strict=False)), **named)

    made.__init__ = either  # type: ignore[assignment]
    return made


class _StandIn(ModuleType):
    """A module that has moved. Where a public function has its name now (``merging.check``), it is called as that."""

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function()(*arguments, **keywords)

    def _function(self) -> Callable[..., Any]:
        package, _, name = self.__name__.rpartition(".")
        return importlib.import_module(package).__getattr__(name)  # type: ignore[no-any-return]


class OldPaths:
    """Finds what no other finder does: modules under the names that they had before they moved."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """A spec for an old name of ``merging``, and for nothing else."""
        del path, target
        old = name.removeprefix("merging.")
        return ModuleSpec(name, self) if old != name and old in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A stand-in; nothing is loaded before a name is asked for."""
        module = _StandIn(spec.name)
        module.__getattr__ = forwarding(spec.name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """A stand-in has nothing to run."""

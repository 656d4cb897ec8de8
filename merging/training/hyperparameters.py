"""What one fine-tuning run is made with, and sweeps: the space that many runs draw from, as a small TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from merging.errors import OptionError, unknown
from merging.moved import by_position
from merging.plugins.options import Plugin, build, option, options_of
from merging.storage.dtypes import dtype_name
from merging.storage.toml import read_toml
from merging.values.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULES = ("cosine", "tanh", "poly", "constant")


@by_position
@dataclass(frozen=True, kw_only=True)
class HyperParameters(Plugin):
    """Hyper-parameters of one training run; names and meanings are those of timm's training script."""

    name: ClassVar[str] = "finetune"

    learning_rate: float = option(1e-4, "peak of the schedule", low=0.0)
    weight_decay: float = option(0.05, "of the optimizer; biases and norms have none", low=0.0)
    epochs: int = option(10, "passes over the training data", low=1)
    batch_size: int = option(64, "samples a step", low=2)
    optimizer: str = option("adamw", "one of timm's optimizers")
    schedule: str = option("cosine", "of the learning rate, after the warm-up", choices=SCHEDULES)
    warmup: float = option(0.5, "epochs of linear warm-up", low=0.0)
    augmentation: str = option("none", "none, flip, crop, affine, wide-affine, or timm's rand-…, augmix-…, original")
    erasing: float = option(0.0, "probability of random erasing", low=0.0, high=1.0)
    mixup: float = option(0.0, "alpha of mixup; 0: none", low=0.0)
    cutmix: float = option(0.0, "alpha of CutMix; 0: none", low=0.0)
    label_smoothing: float = option(0.0, "mass spread evenly over the classes", low=0.0, high=0.9)
    clip: float | None = option(1.0, "largest norm of a gradient; none: as it is", low=0.0)
    seed: int = option(0, "of data order, augmentation and mixup", low=0)

    def shown(self) -> str:
        """Says the main ones in a few words."""
        what = "no augmentation" if self.augmentation == "none" else f"augmentation {self.augmentation}"
        rest = [what] + [f"mixup {self.mixup:g}"] * bool(self.mixup)
        epochs = plural(self.epochs, "epoch")
        return f"lr {self.learning_rate:.2g}, wd {self.weight_decay:.2g}, {epochs}, {', '.join(rest)}"


@dataclass(frozen=True, kw_only=True)
class LoraParameters(HyperParameters):
    """Hyper-parameters of one run that trains an adapter: the same, and what the adapter is; names are PEFT's."""

    learning_rate: float = option(1e-3, "peak of the schedule", low=0.0)
    rank: int = option(8, "rank of each update", low=1)
    alpha: float | None = option(None, "numerator of the scale alpha / rank; none: twice the rank", low=0.001)
    dropout: float = option(0.0, "share of an update's inputs that are dropped in training", low=0.0, high=0.9)
    target_modules: str = option(
        "auto",
        "layers that are adapted: names or their ends, patterns with *, all-linear; several by commas. auto: linear "
        "layers but the head, or convolutions where these are more",
    )
    rslora: bool = option(False, "scale by alpha / √rank (rsLoRA)")
    dora: bool = option(False, "learn each output's length by itself (DoRA)")

    @property
    def numerator(self) -> float:
        """The numerator of the scale."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def shown(self) -> str:
        """Says the main ones in a few words."""
        kind = "DoRA" if self.dora else "rsLoRA" if self.rslora else "LoRA"
        return f"{kind} of rank {self.rank}, {super().shown()}"


OF_ADAPTERS = tuple(
    declared.name
    for declared in options_of(LoraParameters)
    if declared.name not in {common.name for common in options_of(HyperParameters)}
)
"""Hyper-parameters that adapters alone have."""


def parameters_of(settings: Mapping[str, Any]) -> type[HyperParameters]:
    """The class of settings: that of adapters, where they say something that only these have."""
    return LoraParameters if any(name in settings for name in OF_ADAPTERS) else HyperParameters


WHOLE = frozenset(declared.name for declared in options_of(LoraParameters) if declared.type is int)
"""Hyper-parameters that are whole numbers."""


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included; ``log``: evenly in their logarithm; ``whole``: integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, generator: np.random.Generator) -> float | int:
        """Draws one value of the range."""
        if self.log:
            found = float(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))
            return round(found) if self.whole else found
        if self.whole:
            return int(generator.integers(int(self.low), int(self.high), endpoint=True))
        return float(generator.uniform(self.low, self.high))

    def plain(self) -> dict[str, float | bool]:
        """Gives the range as it is written in a sweep, JSON-ready."""
        return {"low": self.low, "high": self.high, "log": self.log}


Values = Range | tuple[Any, ...]
"""A range, or values of which one is taken."""


@dataclass(frozen=True)
class Sweep:
    """The hyper-parameters that the runs of a pool have in common, and those that are drawn for each.

    Attributes:
        space: hyper-parameter → range or values; those with one value are the same for all.
        listed: settings of single runs, in order, over the space; when they are used up, runs are drawn.
    """

    space: Mapping[str, Values]
    listed: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """A sweep from a TOML file: a value, a list of values or ``{low = …, high = …, log = true}`` for each name.

        Runs may be listed one by one as ``[[models]]``.

        Raises:
            OptionError: no TOML, an unknown name (the nearest is given), or a value that is out of range.
        """
        return cls.of(read_toml(path, error=OptionError), str(path))

    @classmethod
    def of(cls, data: Mapping[str, Any], where: str = "sweep") -> Sweep:
        """Makes a sweep from plain values, checked (raises as :meth:`read`)."""
        known = [declared.name for declared in options_of(LoraParameters)]
        listed = data.get("models", [])
        if not isinstance(listed, Sequence) or not all(isinstance(entry, Mapping) for entry in listed):
            raise OptionError(f"{where}: runs are listed as [[models]], a table each")
        for entry in ({k: v for k, v in data.items() if k != "models"}, *listed):
            for key in entry:
                if key not in known:
                    raise unknown(f"hyper-parameter in {where}:", key, known, error=OptionError)
        space: dict[str, Values] = {}
        for key, value in data.items():
            if key != "models":
                space[key] = _values(value, f"{where}: {key}", whole=key in WHOLE)
        made = cls(space, tuple(dict(entry) for entry in listed))
        for key, values in space.items():
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                build(LoraParameters, {key: value})
        for entry in listed:
            build(LoraParameters, entry)
        return made

    def plain(self) -> dict[str, Any]:
        """Gives the sweep as JSON-ready values, as :meth:`of` takes them."""
        space = {
            name: values.plain() if isinstance(values, Range) else list(values) for name, values in self.space.items()
        }
        return {**space, "models": [dict(entry) for entry in self.listed]}

    def overruled_by(self, fixed: Sweep) -> Sweep:
        """The same, but for what another one says, of listed runs as well."""
        listed = tuple({name: value for name, value in own.items() if name not in fixed.space} for own in self.listed)
        return Sweep({**self.space, **fixed.space}, listed)

    def with_one(self, names: Sequence[str]) -> Sweep:
        """The same with one value, the last, of each of these hyper-parameters."""
        one = {
            name: values[-1:] if name in names and isinstance(values, tuple) else values
            for name, values in self.space.items()
        }
        return Sweep(one, self.listed)

    @property
    def names(self) -> tuple[str, ...]:
        """The hyper-parameters that it says anything of."""
        return tuple(dict.fromkeys(name for own in (self.space, *self.listed) for name in own))

    def values(self, name: str) -> list[Any]:
        """Every value that a hyper-parameter, no range, may take in a run."""
        common = self.space.get(name, ())
        return [*(common if isinstance(common, tuple) else ()), *(own[name] for own in self.listed if name in own)]

    def settings(self, index: int, seed: int) -> dict[str, Any]:
        """The hyper-parameters of run ``index``: listed, or drawn; the same for the same seed, whatever else runs."""
        generator = np.random.default_rng([seed, index])
        drawn = {
            key: values.draw(generator) if isinstance(values, Range) else values[int(generator.integers(len(values)))]
            for key, values in self.space.items()
        }
        own = self.listed[index] if index < len(self.listed) else {}
        return {"seed": seed + index, **drawn, **own}

    def suggest(self, trial: Any, index: int, seed: int) -> dict[str, Any]:
        """Gives the settings of a run as :meth:`settings` does, drawn by an Optuna trial."""
        found: dict[str, Any] = {"seed": seed + index}
        for key, values in self.space.items():
            if isinstance(values, Range) and values.whole:
                found[key] = trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
            elif isinstance(values, Range):
                found[key] = trial.suggest_float(key, values.low, values.high, log=values.log)
            elif len(values) > 1:
                found[key] = trial.suggest_categorical(key, list(values))
            else:
                found[key] = values[0]
        return found


def _values(value: Any, where: str, *, whole: bool) -> Values:
    if isinstance(value, Mapping):
        extra = set(value) - {"low", "high", "log"}
        if extra or not {"low", "high"} <= set(value):
            raise OptionError(f"{where} is a table; write {{ low = 1e-5, high = 1e-3, log = true }}")
        low, high, log = float(value["low"]), float(value["high"]), bool(value.get("log", False))
        if low > high or (log and low <= 0):
            why = "low must not be above high" if low > high else "a logarithm needs low > 0"
            raise OptionError(f"{where}: low is {low:g}, high {high:g}; {why}")
        return Range(low, high, log, whole)
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values:
        raise OptionError(f"{where} is an empty list; give at least one value")
    return values


DEFAULT = Sweep.of(
    {
        "learning_rate": {"low": 3e-5, "high": 3e-4, "log": True},
        "weight_decay": [0.0, 0.01, 0.1],
        "epochs": [8, 12, 16],
        "augmentation": ["none", "flip", "crop"],
        "mixup": [0.0, 0.2],
        "label_smoothing": [0.0, 0.1],
    }
)
"""Sweep that is drawn from where none is given, in the manner of Wortsman et al. 2022, Appendix J."""

IMAGES_ONLY = ("augmentation", "mixup")


ADAPTERS_RATE = Range(3e-4, 3e-3, log=True)
"""The learning rates of :data:`DEFAULT` for adapters, ten times those of all weights, as Schulman et al. 2025 found it
(LoRA Without Regret, https://thinkingmachines.ai/blog/lora/)."""


def default_sweep(inputs: Tensor, adapter: str | None = None) -> Sweep:
    """Gives the default sweep for samples: :data:`DEFAULT` for images, without augmentation and mixup for others.

    Args:
        inputs: samples as they are stored.
        adapter: kind of the adapters that are trained; their learning rates are :data:`ADAPTERS_RATE`.
    """
    images = inputs.ndim >= 3 and dtype_name(inputs) == "uint8"
    if images and adapter is None:
        return DEFAULT
    space = {name: values for name, values in DEFAULT.space.items() if images or name not in IMAGES_ONLY}
    return Sweep(space if adapter is None else space | {"learning_rate": ADAPTERS_RATE})
